"""LLM-Pruner."""

from .method import LLMPruner

__all__ = ["LLMPruner"]
