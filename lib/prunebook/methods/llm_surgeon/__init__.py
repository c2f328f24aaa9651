"""The LLM Surgeon."""

from .method import LLMSurgeon

__all__ = ["LLMSurgeon"]
