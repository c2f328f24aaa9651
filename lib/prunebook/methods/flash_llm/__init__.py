"""Flash-LLM: the format that its kernel reads, and what the kernel does with a tile."""
