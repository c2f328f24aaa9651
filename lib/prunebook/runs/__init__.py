"""Execute the notebooks and keep what they did; needs no torch."""
