"""What a model is worth and what it costs: quality, tasks, footprint, memory, zeros."""
