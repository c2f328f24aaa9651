"""What the heads and neurons of a model know: of its predictions, and of its hidden states.

Park et al., Accurate Retraining-free Pruning for Pretrained Encoder-based Language Models (K-prune,
ICLR 2024, arXiv 2308.03449; equations as numbered in its first version); official code
snudm-starlab/K-prune at 9ca629a.
"""

from collections.abc import Sequence

import torch
from torch import nn

from ...errors import UserError
from ...models.anatomy import find_blocks, sublayers
from ...passes.backward import restore_requires_grad, windows_by_batch
from ...passes.precision import matmul_precision
from ...recovery.kd_loss import LogitLoss


def output_projections(model) -> list[tuple[nn.Linear, int]]:
    """Of each sublayer, from the bottom: its output matrix, and how many of its inputs make one
    unit: those of a key-value head with the query heads that read it, or of a neuron."""
    parts = [sublayers(block.module) for block in find_blocks(model)]
    return [
        pair
        for part in parts
        for pair in ((part.out, part.head_dim * max(part.repeats, 1)), (part.last, 1))
    ]


@torch.no_grad()
def predictions(model, tokens: torch.Tensor, precision: str = "exact") -> list[torch.Tensor]:
    """The logits of `tokens [n, length]`, batch by batch: `[windows, classes]` of a classifier,
    `[windows, length, vocabulary]` of a causal model.

    Raises:
        UserError: a model that predicts nothing, bad tokens.
    """
    found = []
    for batch in windows_by_batch(model, tokens):
        with matmul_precision(model.device, precision):
            output = model(input_ids=batch.to(model.device))
        if output.get("logits") is None:
            raise UserError(
                f"{type(model).__name__} predicts nothing whose change could be measured; use a "
                "model with a head, as BertForSequenceClassification fine-tuned on your task, or "
                "a causal language model"
            )
        found.append(output.logits)
    return found


@torch.no_grad()
def knowledge(
    model,
    tokens: torch.Tensor,
    wanted: Sequence[torch.Tensor] | None,
    *,
    first: int = 0,
    temperature: float = 2.0,
    precision: str = "exact",
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Predictive and representational knowledge of each unit of the sublayers from `first` on, from
    the bottom.

    Predictive (equation 4): half the squared derivative, by the unit's mask at 1, of
    `temperature^2 KL(student || teacher)` of the predictions, mean over windows. Masks are not
    needed: the derivative is the sum over tokens of what enters the output matrix times its
    gradient. Of a causal model, KL is averaged over positions (ours). Representational (equation
    5): the squared norm of what the unit adds, mean over tokens and channels, as in the official
    code.

    Args:
        tokens: int64 `[n, length]`.
        wanted: the teacher's `predictions` of them; None where the model still is the
            teacher, whose divergence from itself has no derivative: predictive knowledge is then 0.

    Returns:
        Two lists with a float64 tensor `[units]` a sublayer.
    """
    targets = output_projections(model)[first:]
    shapes = [(linear.in_features // size, size) for linear, size in targets]
    predictive = [
        torch.zeros(units, dtype=torch.float64, device=model.device) for units, _ in shapes
    ]
    grams = [
        torch.zeros(units, size, size, dtype=torch.float64, device=model.device)
        for units, size in shapes
    ]

    def observe(index: int):
        def hook(_, inputs):
            a = inputs[0]
            units = a.detach().float().unflatten(-1, shapes[index]).flatten(0, -3)
            with matmul_precision(a.device, "exact"):  # whatever the passes use
                grams[index] += _grams(units)
            if wanted is None or not a.numel():
                return None
            # the graph begins at the first that has units
            a = a if a.requires_grad else a.detach().requires_grad_()
            value = a.detach()  # a hook that held `a` itself would never be freed
            a.register_hook(lambda gradient: differentiate(index, value.float() * gradient.float()))
            return (a,)

        return hook

    def differentiate(index: int, product: torch.Tensor) -> None:
        units = product.unflatten(-1, shapes[index]).sum(-1).flatten(0, -2)
        by_mask = units.unflatten(0, (len(batch), -1)).sum(1).double()  # [windows, units]
        predictive[index] += by_mask.square().sum(0) / (2 * len(tokens))

    handles = [
        linear.register_forward_pre_hook(observe(index))
        for index, (linear, _) in enumerate(targets)
    ]
    try:
        with restore_requires_grad(model):
            model.requires_grad_(False)
            for number, batch in enumerate(windows_by_batch(model, tokens)):
                with (
                    torch.set_grad_enabled(wanted is not None),
                    matmul_precision(model.device, precision),
                ):
                    logits = model(input_ids=batch.to(model.device)).get("logits")
                    # not if no sublayer here has units left
                    if wanted is not None and logits.requires_grad:
                        _divergence(logits, wanted[number], temperature).backward()
    finally:
        for handle in handles:
            handle.remove()
    representational = []
    for gram, (linear, _), shape in zip(grams, targets, shapes, strict=True):
        norms = (gram * _grams(linear.weight.double().unflatten(1, shape))).sum((1, 2))
        representational.append(norms / (tokens.numel() * linear.out_features))
    return predictive, representational


def _grams(x: torch.Tensor) -> torch.Tensor:
    """The Gram matrix of the channels of each unit `[units, size, size]`, over the rows of `x
    [rows, units, size]`."""
    if x.shape[2] == 1:  # einsum would go through the units one by one
        return x.square().sum(0)[..., None]
    return torch.einsum("tuc,tud->ucd", x, x)


def _divergence(logits: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """`temperature^2 KL(student || teacher)`, summed over windows and averaged over the positions
    of each."""
    rows = logits.flatten(0, -2)
    classes = logits.shape[-1]
    nothing = torch.full((len(rows),), -100, device=rows.device)
    mean, _ = LogitLoss.apply(
        rows, wanted.reshape(-1, classes).clone(), nothing, "reverse", temperature, 0.0
    )
    return mean * len(logits)
