"""The training of BESA's rates on the output of one block.

Xu et al., BESA: Pruning Large Language Models with Blockwise Parameter-Efficient Sparsity
Allocation (arXiv 2402.16880), section 3; official code OpenGVLab/LLMPrune-BESA at 4158d77
(`main.py`).
"""

import torch
from prodigyopt import Prodigy

from ...errors import UserError
from ...passes.sequential import BlockStep
from .learned_sparsity import LearnedRates

# Prodigy's `d_coef` as published for LLaMA-7B by row and for LLaMA-13B by layer. By layer the
# published values go from 0.05 to 50; 50 overshoots here.
_D_COEF = {"row": 5.0, "layer": 0.5}
# Without the sigmoid, whose slope of 1/4 and less no longer damps the steps, `d_coef` is multiplied
# by this number of ours.
_WITHOUT_SIGMOID = 0.1


@torch.enable_grad()
def train_rates(
    block: BlockStep,
    learned: LearnedRates,
    reference: torch.Tensor,
    *,
    sparsity: float,
    penalty: float,
    epochs: int,
) -> None:
    """Train theta on the output of a block with Prodigy, one step for each sequence.

    Args:
        block: the block, with the inputs of all sequences.
        learned: the rates, whose `theta` is trained in place.
        reference: the outputs to match, `[n, length, width]`.
        sparsity: s, the mean rate to aim at.
        penalty: lambda, the weight of the squared relative deviation from it.
        epochs: passes over the sequences.

    Raises:
        UserError: the loss is not finite.
    """
    d_coef = _D_COEF[learned.granularity]
    if not learned.sigmoid:
        d_coef *= _WITHOUT_SIGMOID
    optimiser = Prodigy([learned.theta], d_coef=d_coef)
    for _ in range(epochs):
        for inputs, output in zip(block.hidden.split(1), reference.split(1), strict=True):
            target = output.to(block.device)
            loss = penalised_loss(block, learned, inputs, target, sparsity, penalty)
            (learned.theta.grad,) = torch.autograd.grad(loss, learned.theta)
            optimiser.step()
    if not learned.theta.isfinite().all():
        raise UserError(
            f"outputs of block {block.index} hold NaN or infinity; use a wider dtype such as "
            "float32"
        )


def penalised_loss(
    block: BlockStep,
    learned: LearnedRates,
    inputs: torch.Tensor,
    reference: torch.Tensor,
    sparsity: float,
    penalty: float,
) -> torch.Tensor:
    """The loss of one sequence under all masks of a block, and `lambda ((alpha - s) / s)^2`.

    Args:
        block: the block.
        learned: the rates that the masks follow from.
        inputs: `[1, length, width]`.
        reference: the outputs to match, `[1, length, width]`.
        sparsity: s.
        penalty: lambda.
    """
    # All linears of the block are masked at once, since what one loses another can make up for.
    # The masked weights are freed with this call, before the next ones are made.
    weights, rate = learned.masked()
    deviation = (rate - sparsity) / sparsity
    return block_loss(block.run(inputs, weights), reference) + penalty * deviation**2


def block_loss(output: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """`1/H sum_h |Y_h - Yref_h|^2 / |Yref_h|^2` over the tokens of one batch, in float32.

    Args:
        output: Y, `[sequences, tokens, H]`.
        reference: Yref, of the same shape.
    """
    reference = reference.float().flatten(0, -2)
    # Each channel's error is relative to its own norm; a channel of zeros counts as it is.
    norms = reference.norm(dim=0)
    difference = (output.float().flatten(0, -2) - reference) / norms.masked_fill(norms == 0, 1)
    return difference.square().sum() / len(norms)
