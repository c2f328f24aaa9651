"""Scaling Laws for Sparsely-Connected Foundation Models: the training recipe, the law, its fit."""

from .method import GradualMagnitude

__all__ = ["GradualMagnitude"]
