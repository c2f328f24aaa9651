"""Flash-LLM."""
