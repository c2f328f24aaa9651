"""Scaling Laws for Sparsely-Connected Foundation Models: the training recipe, the law, its fit."""
