"""Importance scores: pure functions of tensors, one file a family. A higher score means keep."""

from . import magnitude, ria, wanda

# The scores that need a weight `[out, in]` and the norms of its inputs `[in]`, by name.
SCORES = {
    "magnitude": lambda weight, norm: magnitude.magnitude_score(weight),
    "ria": ria.ria_score,
    "wanda": wanda.wanda_score,
}

__all__ = ["SCORES"]
