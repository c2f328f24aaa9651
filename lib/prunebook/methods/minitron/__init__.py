"""Minitron."""

from .method import Minitron

__all__ = ["Minitron"]
