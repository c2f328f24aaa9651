"""Kernels, one file each: a torch reference that defines the result on any device, and what is
faster beside it."""
