"""RIA."""

from .method import RIA

__all__ = ["RIA"]
