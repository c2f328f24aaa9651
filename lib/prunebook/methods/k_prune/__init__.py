"""K-prune."""

from .method import KPrune

__all__ = ["KPrune"]
