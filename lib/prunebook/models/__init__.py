"""What a model is made of, and how it changes shape."""
