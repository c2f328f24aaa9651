"""Sheared LLaMA."""
