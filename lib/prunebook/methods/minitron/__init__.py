"""Minitron."""
