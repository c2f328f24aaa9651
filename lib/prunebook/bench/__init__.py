"""Kernels timed beside what users pick today: protocol, records, and one file of cases a kernel
family."""
