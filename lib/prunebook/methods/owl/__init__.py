"""OWL."""

from .method import OWL

__all__ = ["OWL"]
