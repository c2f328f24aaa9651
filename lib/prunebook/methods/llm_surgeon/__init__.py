"""The LLM Surgeon."""
