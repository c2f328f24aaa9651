"""K-prune: sublayer by sublayer, cut the heads and neurons that know least for their FLOPs, then
refit what is left.

Park et al., Accurate Retraining-free Pruning for Pretrained Encoder-based Language Models (ICLR
2024, arXiv 2308.03449; equations as numbered in its first version); official code
snudm-starlab/K-prune at 9ca629a. The paper is about encoders of BERT's type; what is said of
decoders here is ours.

Differences from the official code: divergence as printed, KL(student || teacher); squared
derivatives of each window, not of the mean of each batch of 32, which makes predictive knowledge 32
(windows that agree) to 1,024 times (independent ones) as large, so that the same lambda counts for
less; whole heads are scored, cross terms included; the first threshold that fits is taken, which
may be to remove nothing; a sublayer without units keeps its output bias; least squares is damped,
where theirs falls back.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from tqdm import tqdm

from ...errors import UserError, not_finite
from ...models.anatomy import all_sublayers, find_blocks, sublayers
from ...models.loading import on_device
from ...models.surgery import (
    can_lose_all_heads,
    keep_kv_heads,
    keep_neurons,
    remove_heads,
    remove_neurons,
    sync_config,
)
from ...passes.precision import PRECISIONS
from ...passes.sequential import walk
from ...validation import check_choices, check_flag, check_fraction, check_number
from .knowledge import knowledge, output_projections, predictions
from .refit import check_sums, examples, refit


@dataclass(frozen=True)
class KPrune:
    """Heads (with grouped queries: key-value heads with their query heads) and neurons removed,
    what is left refitted.

    Args:
        sparsity: fraction of the FLOPs of all heads and neurons, at the length of the calibration
            windows.
        predictive, representational: weights of the two kinds of knowledge; the second is lambda,
            above 0, since hidden states alone rank the first sublayer.
        head_weight: mu; 1, since whole heads are scored here (the official 64 undoes its mean over
            a head's channels).
        temperature: gamma.
        tune: refit the output matrix of each sublayer.
        damping: of that, as a fraction of the mean
            diagonal of the inputs' Gram matrix; more for little text.
        refresh: measure anew at every sublayer; without, once on the whole model, where nothing has
            changed yet and hidden states alone decide.
        precision: of the passes, `exact` (the model's dtype) or `fast` (bfloat16 products).

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    predictive: float = 1.0
    representational: float = 2.5e-4
    head_weight: float = 1.0
    temperature: float = 2.0
    tune: bool = True
    damping: float = 1e-6
    refresh: bool = True
    precision: str = "exact"

    paper: ClassVar[str] = "k-prune"
    needs_calibration: ClassVar[bool] = True
    makes_smaller: ClassVar[bool] = True
    facets: ClassVar[dict] = {
        "type": ["Head/Neuron"],
        "criteria": ["KL"],
        "budget": ["FLOPs"],
        "retrain": ["Without"],
    }

    def __post_init__(self):
        check_choices(self, "k-prune", {"precision": PRECISIONS})
        check_fraction("sparsity", self.sparsity)
        for option in ("predictive", "representational", "head_weight", "temperature", "damping"):
            check_number(option, getattr(self, option))
        for option in ("tune", "refresh"):
            check_flag(option, getattr(self, option))
        for option, example in (("temperature", 2.0), ("representational", 2.5e-4)):
            if not getattr(self, option):
                raise UserError(f"{option} 0 is not allowed; use a number above 0, as {example}")

    @property
    def description(self) -> str:
        """What the report calls the pattern."""
        return f"heads and neurons, {self.sparsity} of their FLOPs"

    @torch.no_grad()
    def prune(
        self, model, calibration: torch.Tensor, progress: str | None = None, device=None
    ) -> None:
        """Cut and refit in place, from the bottom. A copy of the model, the teacher, is held
        meanwhile to refit to, and its logits of all calibration windows.

        Args:
            calibration: int64 `[n, length]` without padding.
            progress: label of a progress bar, None for none.
            device: where the whole model computes; None for where it is.

        Raises:
            UserError: a sparsity that cannot be met, a model without predictions or without
                separate heads and neurons, or with norms on what sublayers add; fewer tokens than
                units to refit, too little damping, bad tokens, activations that are not finite.
        """
        flops = [
            cost
            for parts in all_sublayers(model)
            for cost in parts.group_flops(calibration.shape[1])
        ]
        widths, sizes = zip(
            *((linear.in_features, size) for linear, size in output_projections(model)), strict=True
        )
        budget = (1 - self.sparsity) * sum(
            f * (w // s) for f, w, s in zip(flops, widths, sizes, strict=True)
        )
        if budget < min(flops):
            raise UserError(
                f"{budget:.4g} FLOPs are less than one unit has; the nearest possible is "
                f"{min(flops)}"
            )
        if self.tune and (given := calibration.numel()) < max(widths):
            raise UserError(
                f"calibration of {given} tokens cannot refit {max(widths)} inputs; give at least "
                "as many"
            )
        with on_device(model, device):
            needed = self.refresh and self.predictive
            wanted = predictions(model, calibration, self.precision) if needed else None
            scores = None
            for step, whole in self._steps(model, calibration, progress):
                if self.tune and not step.index:
                    check_sums(step)  # before anything is cut
                for of_mlp in (False, True):
                    target = 2 * step.index + of_mlp
                    if scores is None or self.refresh:
                        scores = [None] * target + self._scores(
                            model, calibration, wanted, target, flops
                        )
                    left = survivors(scores[target:], flops[target:], budget)
                    budget -= flops[target] * len(left)
                    self._cut(step, whole, left, of_mlp)
            sync_config(model)

    def _steps(self, model, calibration: torch.Tensor, progress: str | None):
        """The blocks of the model, each with the teacher's of the same number and the states that
        enter both, which only the refit needs."""
        if not self.tune:
            bar = tqdm(find_blocks(model), desc=progress, unit="block", disable=progress is None)
            return ((block, None) for block in bar)
        teacher = copy.deepcopy(model)
        both = ((model, progress), (teacher, None))
        return zip(
            *(walk(m, calibration, precision=self.precision, progress=label) for m, label in both),
            strict=True,
        )

    def _scores(
        self, model, calibration, wanted, target: int, flops: list[int]
    ) -> list[torch.Tensor]:
        """Knowledge a FLOP of the units of the target and of all sublayers above (equations 10 and
        11)."""
        found = knowledge(
            model,
            calibration,
            wanted if target else None,
            first=target,
            temperature=self.temperature,
            precision=self.precision,
        )
        parts = all_sublayers(model)
        scores = []
        for index, (of_predictions, of_states) in enumerate(zip(*found, strict=True), target):
            of_mlp = index % 2
            weight = (1.0 if of_mlp else self.head_weight) / flops[index]
            score = weight * (self.predictive * of_predictions + self.representational * of_states)
            if not score.isfinite().all():
                raise not_finite("activations or gradients")
            if not of_mlp and not can_lose_all_heads(parts[index // 2]):
                # a decoder counts positions by what its attentions cache
                score[score.argmax()] = torch.inf
            scores.append(score.cpu())
        return scores

    def _cut(self, step, whole, left: list[int], of_mlp: bool) -> None:
        """Leave the units `left` of one sublayer, and refit its output matrix to the teacher's
        states."""
        parts = sublayers(step.module)
        if of_mlp:
            keep_neurons(parts, left) if left else remove_neurons(parts)
        elif left:
            keep_kv_heads(parts, left)
        else:
            remove_heads(parts)
        if self.tune and left:
            refit(parts.last if of_mlp else parts.out, examples(step, whole, of_mlp), self.damping)


def survivors(scores: list[torch.Tensor], flops: list[int], budget: float) -> list[int]:
    """Which units of the first sublayer stay when the lowest scores of all go until the rest fits
    the budget.

    Args:
        scores: `[units]` a sublayer; infinite ones stay.
        flops: of a unit, a sublayer.

    Raises:
        UserError: what must stay does not fit.
    """
    every = torch.cat(scores)
    sizes = torch.tensor([len(of_sublayer) for of_sublayer in scores])
    costs = torch.tensor(flops, dtype=torch.float64).repeat_interleave(sizes)
    order = every.sort(stable=True).indices
    # FLOPs without the k lowest
    left = torch.cat([costs.sum()[None], costs.sum() - costs[order].cumsum(0)])
    gone = int((left > budget * (1 + 1e-9)).sum())
    if gone > (may_go := int(every.isfinite().sum())):
        raise UserError(
            f"{budget:.4g} FLOPs are less than what must stay; the nearest possible is "
            f"{left[may_go]:.4g}"
        )
    kept = torch.ones(len(every), dtype=torch.bool)
    kept[order[:gone]] = False
    return kept[: len(scores[0])].nonzero().flatten().tolist()
