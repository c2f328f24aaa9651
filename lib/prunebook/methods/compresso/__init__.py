"""Compresso: masks and adapters trained together under one budget for the whole model."""

from .method import Compresso

__all__ = ["Compresso"]
