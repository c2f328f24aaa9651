"""LLM-Pruner."""
