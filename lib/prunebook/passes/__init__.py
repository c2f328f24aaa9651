"""Forward and backward passes through a model; the one room that registers hooks."""
