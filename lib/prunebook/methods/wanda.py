"""Wanda: prune by weight magnitude times input norm, compared within each output row.

Sun et al., A Simple and Effective Pruning Approach for Large Language Models (arXiv 2306.11695),
equation 1 and algorithm 1; official code locuslab/wanda at 8e8fc87.

Differences from the official code that leave the function computed as it is:

- Linears that read the same input share one norm.
- The statistics pass ends before the block's last linear, whose output nobody needs.
- Ties of n:m go lowest index first; the official code leaves their order unspecified.

Differences that can change a mask:

- n of n:m counts the kept weights; the official code counts the zeros. At 2:4 and 4:8 they are the
  same.
- The product of row length and sparsity is rounded to 12 digits before it is rounded down: 0.29 of
  100 is 29. The official code rounds the binary product down, which gives 28.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..kernels.score import Score
from ..passes.statistics import InputNorm
from .base import ScoreMethod


@dataclass(frozen=True)
class Wanda(ScoreMethod):
    """Pruning by weights and activations; the remaining weights keep their values.

    Args:
        sparsity: fraction of the weights removed from each row, in [0, 1).
        pattern: n:m instead, e.g. '2:4'.
        scope: the comparison group: `row` (the paper's) or `layer` (its ablation).
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).

    Raises:
        UserError: an impossible option.
    """

    paper: ClassVar[str | None] = "wanda"

    def score(self, weight: torch.Tensor, inputs: InputNorm) -> Score:
        """`S_ij = |W_ij| * ||X_j||_2` (equation 1)."""
        # Each row then loses its lowest scores: `ScoreMethod.prune`, algorithm 1.
        return Score(weight, columns=inputs.norm())
