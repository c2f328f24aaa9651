"""Exact selection of the lowest scores: in rows, in layers, and n of m."""
