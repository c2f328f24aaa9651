"""DSnoT: Dynamic Sparse No Training."""

from .method import DSnoT

__all__ = ["DSnoT"]
