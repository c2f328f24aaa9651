"""Compresso: masks and adapters trained together under one budget for the whole model."""
