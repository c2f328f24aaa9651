"""Gradual magnitude pruning: when weights are removed during a training, and which.

Zhu and Gupta (arXiv 1710.01878), as in Frantar et al., Scaling Laws for Sparsely-Connected
Foundation Models (ICLR 2024, arXiv 2309.08520); official code google-research/jaxpruner,
projects/bigsparse, at f133ee5.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ...criteria.magnitude import magnitude_score
from ...kernels.masking import apply_mask
from ...models.anatomy import find_blocks, weight_of
from ...sparsity.patterns import NofM, Pattern, Unstructured, keep_mask


@dataclass(frozen=True)
class Ramp:
    """How a sparsity grows during a training, on a cubic ramp.

    Args:
        start: share of the steps after which it begins to grow.
        end: share of the steps at which it stops.
        updates: how often masks are chosen on the ramp, at most once in a step.
    """

    start: float
    end: float
    updates: int

    def share(self, step: int, steps: int) -> float:
        """The share of its final sparsity that a matrix has, `1 - (1 - tau)^3`.

        Args:
            step: number of updates of the weights so far.
            steps: number of all updates.
        """
        return 1 - (1 - self._progress(step, steps)) ** 3

    def _progress(self, step: int, steps: int) -> float:
        """tau: 0 before the ramp, 1 from its end on."""
        first = round(self.start * steps)
        last = round(self.end * steps)
        if step >= last:
            return 1.0
        if step <= first:
            return 0.0
        return (step - first) / (last - first)

    def chooses_at(self, step: int, steps: int) -> bool:
        """Whether masks are chosen after so many updates of the weights.

        Args:
            step: number of updates of the weights so far.
            steps: number of all updates.
        """
        # The ramp is cut into equal parts; masks are chosen at the end of each.
        before = int(self.updates * self._progress(step - 1, steps))
        now = int(self.updates * self._progress(step, steps))
        return now > before


def removed_weights(weight: torch.Tensor, target: Pattern, share: float = 1.0) -> torch.Tensor:
    """Which weights are zero at a point of the ramp: the smallest, but none that n:m keeps.

    Args:
        weight: `[out, in]`.
        target: the final pattern.
        share: share of the final sparsity, see `Ramp.share`.

    Returns:
        bool `[out, in]`, True for zeros.
    """
    score = magnitude_score(weight).dense()
    # What n:m keeps in the end is kept all the way.
    if isinstance(target, NofM):
        score = score.masked_fill(keep_mask(score, target), torch.inf)
    # s(t) = S (1 - (1 - tau)^3): the smallest of the matrix go, exactly as many as s says.
    return ~keep_mask(score, Unstructured(target.sparsity * share, "layer"))


class GradualMasks:
    """The masks of a training, which remove more and more of every matrix.

    Args:
        model: the model that is trained.
        target: the final pattern of every matrix in the blocks.
        ramp: says when masks are chosen, and what share of the final sparsity they have.
        steps: number of all updates of the weights.
        embeddings: prune embedding and head, too.
    """

    def __init__(
        self, model: PreTrainedModel, target: Pattern, ramp: Ramp, steps: int, embeddings: bool
    ):
        self._ramp = ramp
        self._steps = steps
        self._step = 0
        self._removed = {}
        targets = {}
        for block in find_blocks(model):
            targets |= dict.fromkeys(block.linears.values(), target)
        if embeddings:
            # S_emb = 1 - sqrt(1 - S)
            milder = Unstructured(1 - (1 - target.sparsity) ** 0.5, "layer")
            targets[model.get_input_embeddings()] = milder
            targets[model.get_output_embeddings()] = milder
        # By weight, so that a tied one is there once.
        self._matrices = {module.weight: (module, own) for module, own in targets.items()}

    @torch.no_grad()
    def apply(self) -> None:
        """Choose masks if it is time to, and set what they remove to zero.

        It is called before the first update of the weights and after each.
        """
        share = self._ramp.share(self._step, self._steps)
        chooses = self._ramp.chooses_at(self._step, self._steps)
        for parameter, (module, target) in self._matrices.items():
            weight = weight_of(module)
            if chooses:
                self._removed[parameter] = removed_weights(weight, target, share)
            if parameter in self._removed:
                apply_mask(weight, ~self._removed[parameter])
        self._step += 1
