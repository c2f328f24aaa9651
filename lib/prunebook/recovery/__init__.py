"""Training after a cut, or with it."""
