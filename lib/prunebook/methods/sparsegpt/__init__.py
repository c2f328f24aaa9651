"""SparseGPT."""

from .column_sweep import sparsegpt_update
from .method import SparseGPT

__all__ = ["SparseGPT", "sparsegpt_update"]
