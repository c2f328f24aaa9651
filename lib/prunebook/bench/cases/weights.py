"""Operands that several families share: weights and their scores."""

from __future__ import annotations

import torch

from ...kernels.score import Score
from ..case import Operands

SQUARE = (4096, 4096)  # [out, in]
UP = (11008, 4096)
DOWN = (4096, 11008)
SMALL = (576, 1536)


def weight(
    generator: torch.Generator, rows: int, columns: int, heavy: bool = False
) -> torch.Tensor:
    """Random bfloat16 weights `[rows, columns]`.

    Args:
        generator: source of the random numbers; weights are on its device.
        rows: number of outputs.
        columns: number of inputs; normal weights have variance 1 / columns.
        heavy: draw from Student's t of 3 degrees of freedom instead, whose largest are far out.
    """
    options = {"generator": generator, "device": generator.device}
    w = torch.randn(rows, columns, **options)
    if heavy:
        w /= (sum(torch.randn(rows, columns, **options).square() for _ in range(3)) / 3).sqrt()
    return (w / columns**0.5).bfloat16()


def scored(
    generator: torch.Generator, rows: int, columns: int, score: str, heavy: bool = False
) -> Operands:
    """A weight and the float32 factors of its score, None for each that the score does not have.

    Args:
        score: 'magnitude', 'wanda' or 'ria'; other arguments are those of `weight`.
    """
    w = weight(generator, rows, columns, heavy)
    operands = {"weight": w, "columns": None, "column_sums": None, "row_sums": None}
    if score != "magnitude":
        operands["columns"] = torch.rand(columns, generator=generator, device=w.device) + 0.1
    if score == "ria":
        operands["column_sums"] = w.abs().sum(0, dtype=torch.float32)
        operands["row_sums"] = w.abs().sum(1, dtype=torch.float32)
    return operands


def score_of(operands: Operands) -> Score:
    """The score of operands from `scored`."""
    return Score(
        operands["weight"], operands["columns"], operands["column_sums"], operands["row_sums"]
    )
