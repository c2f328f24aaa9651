"""DSnoT: Dynamic Sparse No Training."""
