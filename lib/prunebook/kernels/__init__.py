"""Kernels, one file each: a torch reference, which defines the result, and a Triton kernel."""
