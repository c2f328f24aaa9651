"""Constraints on how much is removed, as Lagrange terms whose multipliers are trained by gradient
ascent.

Wang et al., Structured Pruning of Large Language Models (EMNLP 2020, arXiv 1910.04732); for several
kinds of structure at once Sheared LLaMA (arXiv 2310.06694, section 2.1; princeton-nlp/LLM-Shearing
at b87218b, `L0Module.lagrangian_regularization`, whose form this is): for a kind with the fraction
s of each row removed, in expectation, and the target t,

    lambda1 mean(s - t) + lambda2 mean((s - t)^2).

Ascent raises lambda1 while s > t and lowers it while s < t; lambda2 never falls.
"""

from collections.abc import Mapping

import torch
from torch import nn


class Lagrangian(nn.Module):
    """Both multipliers of every kind, from 0. Minimise over what makes `removed`, maximise over the
    parameters here.

    Args:
        targets: kind -> fraction that shall be removed in the end.
        ramp: steps in which the targets grow on a line from 0; 0 for none.
    """

    def __init__(self, targets: Mapping[str, float], ramp: int):
        super().__init__()
        self.targets = dict(targets)
        self.ramp = ramp
        self.multipliers = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(2)) for name in targets}
        )

    def target(self, name: str, step: int) -> float:
        """The fraction of a kind that shall be removed at a step, counted from 0."""
        return self.targets[name] * (min(1.0, step / self.ramp) if self.ramp else 1.0)

    def forward(self, removed: Mapping[str, torch.Tensor], step: int) -> torch.Tensor:
        """The sum of all terms. `removed`: kind -> expected fraction of each row that is removed,
        `[rows]`."""
        terms = []
        for name, (first, second) in self.multipliers.items():
            beyond = removed[name] - self.target(name, step)
            terms.append(first * beyond.mean() + second * beyond.square().mean())
        return torch.stack(terms).sum()
