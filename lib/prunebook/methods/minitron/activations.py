"""What activations say of heads, neurons, hidden channels and blocks, all from forward passes.

Muralidharan et al., Compact Language Models via Pruning and Knowledge Distillation (Minitron,
NeurIPS 2024, arXiv 2407.14679), section 2.2; NVIDIA's implementation is mcore_minitron.py of
Model-Optimizer. As there, a neuron is read at the input of the last matrix, after activation and
gate, which settles what the paper's formula means for gated MLPs.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from ...errors import UserError
from ...models.anatomy import sublayers
from ...passes.sequential import BlockStep, walk
from .aggregation import Aggregated


@dataclass(frozen=True)
class Importance:
    """Scores of all axes, float64; higher is more important.

    heads: `[H]` for each block.
    neurons: `[m]` for each block.
    hidden: `[d]`, summed over the two norms of every block.
    influence: `[L]`, 1 less the mean cosine between what enters and what leaves a block.
    """

    heads: list[torch.Tensor]
    neurons: list[torch.Tensor]
    hidden: torch.Tensor
    influence: torch.Tensor


@torch.no_grad()
def activation_importance(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    *,
    sample_aggregation: str = "l2",
    token_aggregation: str = "mean",
    head_norm: str = "token",
    precision: str = "exact",
    progress: str | None = None,
    device: torch.device | str | None = None,
) -> Importance:
    """The scores of every head, neuron, hidden channel and block of the model as it is.

    Args:
        model: a causal language model whose blocks have separate projections.
        tokens: int64 `[n, length]`.
        sample_aggregation: over samples, `l2`, `mean` or `var`.
        token_aggregation: over the tokens of a sample, one of the same.
        head_norm: the norm over a head's channels is taken of each `token` before aggregation (the
            paper), or of the aggregated `channel`s (NVIDIA's code).
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).
        progress: label of a progress bar; None for no bar.
        device: where blocks compute, one at a time; None for where the model is.

    Raises:
        UserError: bad tokens, no separate projections, activations that are not finite.
    """
    heads = []
    neurons = []
    influence = []
    hidden = torch.zeros(model.config.hidden_size, dtype=torch.float64)
    for step in walk(model, tokens, precision=precision, progress=progress, device=device):
        # One pass of the block as it is gathers the inputs of its linears and its outputs.
        outputs, inputs_of = _run_block(step, sample_aggregation, token_aggregation)
        parts = sublayers(step.module)
        # F_head: norms of what each head hands to the output projection
        heads.append(_head_scores(inputs_of.get(parts.out), parts.heads, head_norm))
        # F_neuron: activations that the last matrix of the MLP reads
        neurons.append(_channel_scores(inputs_of.get(parts.last)))
        # F_emb: outputs of the two norms, which the first matrices read, summed over all blocks
        for linear in (parts.query, parts.first[0]):
            if linear in inputs_of:
                hidden = hidden + _channel_scores(inputs_of[linear])
        # BI = 1 - E[cos(what enters, what leaves)]
        influence.append(1 - _mean_cosine(step, outputs))
        # The outputs are there already: the walk need not compute them again.
        step.hidden.copy_(outputs)
        step.propagated = True
    return Importance(heads, neurons, hidden, _finite(torch.stack(influence).cpu()))


def _run_block(
    step: BlockStep, sample_aggregation: str, token_aggregation: str
) -> tuple[torch.Tensor, dict[torch.nn.Module, Aggregated]]:
    """What leaves a block, `[n, length, width]`, and linear -> aggregated inputs.

    Linears of a sublayer that has lost all its units are absent.

    Args:
        step: the block.
        sample_aggregation: over samples.
        token_aggregation: over the tokens of a sample.
    """
    outputs = torch.empty_like(step.hidden)
    head_dim = sublayers(step.module).head_dim
    statistics = step.collect(
        lambda width, _: Aggregated(width, head_dim, sample_aggregation, token_aggregation),
        outputs=outputs,
    )
    return outputs, {linear: statistics[name] for name, linear in step.linears.items()}


def _channel_scores(inputs: Aggregated | None) -> torch.Tensor:
    """The scores of the channels of an input, in host memory; none where nothing was read."""
    if inputs is None:
        return torch.zeros(0, dtype=torch.float64)
    return inputs.scores("channels").cpu()


def _head_scores(inputs: Aggregated | None, heads: int, head_norm: str) -> torch.Tensor:
    """The scores of the query heads `[heads]`.

    Args:
        inputs: what the output projection reads; None where no head is left.
        heads: number of query heads.
        head_norm: as for `activation_importance`.
    """
    if inputs is None:
        return torch.zeros(0, dtype=torch.float64)
    if head_norm == "token":
        return inputs.scores("heads").cpu()
    # NVIDIA's order: channels are aggregated first, then the norm over those of a head is taken.
    return _channel_scores(inputs).view(heads, -1).norm(dim=1)


def _finite(influence: torch.Tensor) -> torch.Tensor:
    """The influence of all blocks, or a `UserError` where some of it is not finite."""
    if not influence.isfinite().all():
        raise UserError(
            "the residual stream holds NaN or infinity; use a wider dtype such as float32"
        )
    return influence


def _mean_cosine(step: BlockStep, outputs: torch.Tensor) -> torch.Tensor:
    """The mean over all tokens of the cosine between what enters and what leaves a block."""
    cosines = []
    # Cosines are in float32, a batch at a time; their mean is in float64.
    batches = zip(step.hidden.split(step.batch_size), outputs.split(step.batch_size), strict=True)
    for before, after in batches:
        cosines.append(cosine_similarity(before.float(), after.float(), dim=-1).double())
    return torch.cat(cosines).mean()
