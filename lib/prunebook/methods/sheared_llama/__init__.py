"""Sheared LLaMA: a model of a given shape, learned with masks, then trained on a data mixture."""

from .method import ShearedLLaMA

__all__ = ["ShearedLLaMA"]
