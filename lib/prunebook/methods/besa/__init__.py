"""BESA."""

from .method import BESA

__all__ = ["BESA"]
