"""Constraints on how much is removed, as Lagrange terms with trained multipliers.

Wang et al., Structured Pruning of Large Language Models (EMNLP 2020, arXiv 1910.04732); for several
kinds of structure at once Sheared LLaMA (arXiv 2310.06694, section 2.1; princeton-nlp/LLM-Shearing
at b87218b, `L0Module.lagrangian_regularization`, whose form this is). For a kind of structure of
which the fraction s of each row is removed, in expectation, and the target t, the term is

    lambda1 mean(s - t) + lambda2 mean((s - t)^2).

Gradient ascent raises lambda1 while s > t and lowers it while s < t; lambda2 never falls.
"""

from collections.abc import Mapping

import torch
from torch import nn


class Lagrangian(nn.Module):
    """The constraints of all kinds of structure: two multipliers each, which start at 0.

    The sum of the terms is minimised over what makes `removed` and maximised over the parameters
    of this module.

    Args:
        targets: kind -> fraction that is removed in the end.
        ramp: steps in which the targets grow linearly from 0; 0 for no ramp.
    """

    def __init__(self, targets: Mapping[str, float], ramp: int):
        super().__init__()
        self.targets = dict(targets)
        self.ramp = ramp
        self.multipliers = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(2)) for name in targets}
        )

    def target(self, name: str, step: int) -> float:
        """t of a kind at a step.

        Args:
            name: the kind.
            step: number of the step, from 0.
        """
        progress = 1.0
        if self.ramp:
            progress = min(1.0, step / self.ramp)
        return self.targets[name] * progress

    def forward(self, removed: Mapping[str, torch.Tensor], step: int) -> torch.Tensor:
        """The sum of the terms of all kinds.

        Args:
            removed: kind -> s, the expected fraction of each row that is removed, `[rows]`.
            step: number of the step, from 0.
        """
        terms = []
        for name, (lambda1, lambda2) in self.multipliers.items():
            # s - t, positive where more is removed than the target asks for
            excess = removed[name] - self.target(name, step)
            terms.append(lambda1 * excess.mean() + lambda2 * excess.square().mean())
        return torch.stack(terms).sum()
