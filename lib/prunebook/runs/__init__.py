"""Executing the notebooks, and keeping what they measured; needs no torch."""
