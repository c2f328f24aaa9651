"""Operands that several families share: weights, and the factors of their scores."""

from __future__ import annotations

import torch

from ...kernels.scores import Factors
from ..case import Operands

SQUARE = (4096, 4096)  # [out, in]
UP = (11008, 4096)
DOWN = (4096, 11008)
SMALL = (576, 1536)


def weight(
    generator: torch.Generator, rows: int, columns: int, heavy: bool = False
) -> torch.Tensor:
    """Normal bfloat16 weights `[rows, columns]` of variance 1 / columns; `heavy`: Student's t of 3
    degrees of freedom, whose largest are far out."""
    options = {"generator": generator, "device": generator.device}
    w = torch.randn(rows, columns, **options)
    if heavy:
        w /= (sum(torch.randn(rows, columns, **options).square() for _ in range(3)) / 3).sqrt()
    return (w / columns**0.5).bfloat16()


def scored(
    generator: torch.Generator, rows: int, columns: int, score: str, heavy: bool = False
) -> Operands:
    """A weight and the float32 factors of its score, None where it has none."""
    w = weight(generator, rows, columns, heavy)
    found = {"weight": w, "columns": None, "column_sums": None, "row_sums": None}
    if score != "magnitude":
        found["columns"] = torch.rand(columns, generator=generator, device=w.device) + 0.1
    if score == "ria":
        found |= {
            "column_sums": w.abs().sum(0, dtype=torch.float32),
            "row_sums": w.abs().sum(1, dtype=torch.float32),
        }
    return found


def factors(operands: Operands) -> Factors:
    """The factors among the operands."""
    return Factors(operands["columns"], operands["column_sums"], operands["row_sums"])
