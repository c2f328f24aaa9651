"""BESA."""
