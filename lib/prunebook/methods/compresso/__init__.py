"""Compresso."""
