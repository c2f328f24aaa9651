"""Figures of the concept pages, drawn from arrays that the pages compute, without torch.

Each function returns a `Drawing`, which a notebook shows as SVG. Masks are True where a weight is
kept.
"""

from .adaptation import lora_merge, obs_update
from .cache import cache_eviction, cached_positions
from .canvas import Drawing
from .zeros import comparison_groups, granularity, n_of_m_row

__all__ = [
    "Drawing",
    "cache_eviction",
    "cached_positions",
    "comparison_groups",
    "granularity",
    "lora_merge",
    "n_of_m_row",
    "obs_update",
]
