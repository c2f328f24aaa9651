"""Kernels timed beside what users pick today: protocol, records, and a file of cases a family."""
