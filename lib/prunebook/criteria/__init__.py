"""Importance scores: pure functions of tensors, one file a family. A higher score means keep."""

from . import hessian, magnitude, wanda

__all__ = ["hessian", "magnitude", "wanda"]
