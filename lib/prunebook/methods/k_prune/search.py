"""The mask search: which heads and neurons stay within a budget of FLOPs (KPMS).

Park et al., K-prune (ICLR 2024, arXiv 2308.03449), equations 10 and 11 as numbered in its first
version. Units of all sublayers that are not yet cut compete in one ranking.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from ...errors import UserError, not_finite
from ...models.anatomy import all_sublayers
from ...models.surgery import can_lose_all_heads
from .knowledge import output_projections

# Costs are summed in float64: a budget that they meet but for rounding is met.
_ROUNDING = 1e-9


def flops_of_units(model: PreTrainedModel, length: int) -> list[int]:
    """FLOPs of one unit over `length` tokens, for each sublayer from the bottom."""
    flops = []
    for parts in all_sublayers(model):
        flops += parts.group_flops(length)
    return flops


def flops_budget(model: PreTrainedModel, sparsity: float, flops: Sequence[int]) -> float:
    """The FLOPs of all units that may stay.

    Args:
        model: the model before anything is cut.
        sparsity: fraction of the FLOPs of all units that goes.
        flops: FLOPs of one unit, for each sublayer.

    Raises:
        UserError: not one unit may stay.
    """
    # tau = (1 - sparsity) times the FLOPs of the whole model's units
    total = 0
    for (linear, size), cost in zip(output_projections(model), flops, strict=True):
        total += cost * (linear.in_features // size)
    budget = (1 - sparsity) * total
    if budget < min(flops):
        raise UserError(
            f"{budget:.4g} FLOPs are less than one unit has; the nearest possible is {min(flops)}"
        )
    return budget


def scores_per_flop(
    model: PreTrainedModel,
    knowledge: tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]],
    first: int,
    flops: Sequence[int],
    predictive: float,
    representational: float,
    head_weight: float,
) -> list[torch.Tensor]:
    """Knowledge a FLOP (equations 10 and 11), in host memory; infinite for what must stay.

    Args:
        model: the student as it is cut by now.
        knowledge: K_pred and K_rep of the units of each sublayer from `first` on, `[units]` each.
        first: number of the first sublayer, from the bottom.
        flops: FLOPs of one unit, for each sublayer of the model.
        predictive: weight of K_pred.
        representational: lambda, the weight of K_rep.
        head_weight: mu.

    Raises:
        UserError: knowledge that is not finite.
    """
    parts = all_sublayers(model)
    scores = []
    for index, (k_pred, k_rep) in enumerate(zip(*knowledge, strict=True), first):
        # K = K_pred + lambda K_rep of each unit
        of_units = predictive * k_pred + representational * k_rep
        # Attention and MLP take turns: S_head = mu K / F_head, S_neuron = K / F_neuron.
        is_attention = index % 2 == 0
        weight = 1.0 / flops[index]
        if is_attention:
            weight = head_weight / flops[index]
        score = weight * of_units
        if not score.isfinite().all():
            raise not_finite("activations or gradients")
        if is_attention and not can_lose_all_heads(parts[index // 2]):
            # A decoder counts positions by what its attentions cache: one head stays.
            score[score.argmax()] = torch.inf
        scores.append(score.cpu())
    return scores


def survivors(scores: Sequence[torch.Tensor], flops: Sequence[int], budget: float) -> list[int]:
    """Which units of the first sublayer stay when the lowest of all sublayers go.

    As many go as are needed for the rest to fit the budget, which may be none.

    Args:
        scores: `[units]` for each sublayer, knowledge a FLOP; infinite ones stay.
        flops: FLOPs of one unit, for each sublayer.
        budget: FLOPs of all units that stay.

    Returns:
        Numbers of the units of the first sublayer, ascending.

    Raises:
        UserError: what must stay does not fit.
    """
    all_scores = torch.cat(list(scores))
    sizes = torch.tensor([len(sublayer_scores) for sublayer_scores in scores])
    costs = torch.tensor(flops, dtype=torch.float64).repeat_interleave(sizes)
    # R_k: the FLOPs that are left without the k units of lowest score
    order = all_scores.sort(stable=True).indices
    total = costs.sum()
    remaining = torch.cat([total[None], total - costs[order].cumsum(0)])
    # The smallest k whose rest fits: the threshold is the score of the k-th unit.
    removed = int((remaining > budget * (1 + _ROUNDING)).sum())
    removable = int(all_scores.isfinite().sum())
    if removed > removable:
        raise UserError(
            f"{budget:.4g} FLOPs are less than what must stay; the nearest possible is "
            f"{remaining[removable]:.4g}"
        )
    kept = torch.ones(len(all_scores), dtype=torch.bool)
    kept[order[:removed]] = False
    # Only the first sublayer is cut now; the others are decided on afresh later.
    return kept[: len(scores[0])].nonzero().flatten().tolist()
