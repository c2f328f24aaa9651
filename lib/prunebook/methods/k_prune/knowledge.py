"""What the heads and neurons of a model know: of its predictions, and of its hidden states.

Park et al., Accurate Retraining-free Pruning for Pretrained Encoder-based Language Models (K-prune,
ICLR 2024, arXiv 2308.03449; equations as numbered in its first version); official code
snudm-starlab/K-prune at 9ca629a.

A unit is an MLP neuron, or a key-value head with the query heads that read it. Its knowledge is
read where its activations enter the output matrix of its sublayer.

Derivatives are squared for each window; the official code squares the mean of each batch of 32.
That makes predictive knowledge 32 (windows that agree) to 1,024 times (independent ones) as large,
so that the same lambda counts for less.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from ...models.anatomy import all_sublayers
from ...passes.backward import restore_requires_grad, windows_by_batch
from ...passes.hooks import PreHook, forward_pre_hooks, hook_gradient
from ...passes.precision import matmul_precision
from .predictions import divergence


def output_projections(model: PreTrainedModel) -> list[tuple[nn.Linear, int]]:
    """The output matrix of each sublayer, from the bottom, and how many of its inputs make a unit.

    Those are all channels of the query heads of one key-value head, and 1 for a neuron.
    """
    projections = []
    for parts in all_sublayers(model):
        projections.append((parts.out, parts.head_dim * max(parts.repeats, 1)))
        projections.append((parts.last, 1))
    return projections


@torch.no_grad()
def knowledge(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    teacher_predictions: Sequence[torch.Tensor] | None,
    *,
    first: int = 0,
    temperature: float = 2.0,
    precision: str = "exact",
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Predictive and representational knowledge of the units of the sublayers from `first` on.

    Args:
        model: the student.
        tokens: int64 `[n, length]`.
        teacher_predictions: the teacher's `predictions` of them. None where the student still is
            the teacher: predictive knowledge is then 0, since a divergence from itself has no
            derivative.
        first: number of the first sublayer, from the bottom.
        temperature: gamma.
        precision: `exact` (passes in the model's dtype) or `fast` (products in bfloat16).

    Returns:
        Two lists with a float64 tensor `[units]` for each sublayer, from the bottom.
    """
    # Weights are frozen: only what enters the output matrices needs a gradient.
    differentiate = teacher_predictions is not None
    measured = UnitKnowledge(output_projections(model)[first:], len(tokens), differentiate)
    with forward_pre_hooks(measured.hooks()), restore_requires_grad(model):
        model.requires_grad_(False)
        for number, batch in enumerate(windows_by_batch(model, tokens)):
            measured.windows_of_batch = len(batch)
            with (
                torch.set_grad_enabled(differentiate),
                matmul_precision(model.device, precision),
            ):
                logits = model(input_ids=batch.to(model.device)).get("logits")
                # Without gradient where no sublayer here has units left.
                if differentiate and logits.requires_grad:
                    divergence(logits, teacher_predictions[number], temperature).backward()
    return measured.predictive, measured.representational(tokens.numel())


class UnitKnowledge:
    """Gathers both kinds of knowledge while passes run, by hooks on output matrices.

    Args:
        projections: output matrices with the number of inputs of a unit.
        windows: number of all windows.
        differentiate: measure predictive knowledge too, by gradients.
    """

    def __init__(
        self, projections: Sequence[tuple[nn.Linear, int]], windows: int, differentiate: bool
    ):
        self._projections = projections
        self._windows = windows
        self._differentiate = differentiate
        self.windows_of_batch = 0
        # For each sublayer: (units, channels of a unit), sums of squared derivatives `[units]`,
        # and Gram matrices of each unit's channels `[units, channels, channels]`.
        self._shapes = []
        self.predictive = []
        self._grams = []
        for linear, size in projections:
            shape = (linear.in_features // size, size)
            accumulator = {"dtype": torch.float64, "device": linear.weight.device}
            self._shapes.append(shape)
            self.predictive.append(torch.zeros(shape[0], **accumulator))
            self._grams.append(torch.zeros(*shape, size, **accumulator))

    def hooks(self) -> list[tuple[nn.Module, PreHook]]:
        """A hook for what enters each output matrix."""
        hooks = []
        for index, (linear, _) in enumerate(self._projections):
            hooks.append((linear, self._hook(index)))
        return hooks

    def _hook(self, index: int) -> PreHook:
        def hook(_, inputs):
            activations = inputs[0]
            self._add_gram(index, activations.detach())
            if not self._differentiate or not activations.numel():
                return None
            # The graph begins at the first matrix that has units.
            if not activations.requires_grad:
                activations = activations.detach().requires_grad_()
            # A hook that held the tensor itself would never be freed.
            values = activations.detach()
            hook_gradient(
                activations,
                lambda gradient: self._add_derivative(index, values.float() * gradient.float()),
            )
            return (activations,)

        return hook

    def _add_gram(self, index: int, activations: torch.Tensor) -> None:
        """Add `A_u^T A_u` of each unit u of a sublayer."""
        units = activations.float().unflatten(-1, self._shapes[index]).flatten(0, -3)
        # Exactly, whatever the passes use.
        with matmul_precision(activations.device, "exact"):
            self._grams[index] += _unit_grams(units)

    def _add_derivative(self, index: int, product: torch.Tensor) -> None:
        """Add half the squared derivative of each window's divergence by the mask of each unit.

        Masks need not exist: at 1, the derivative by a mask is the sum over tokens and channels of
        activation times gradient.

        Args:
            index: number of the sublayer.
            product: activation times gradient, `[windows, tokens, in]` or `[tokens, in]`.
        """
        by_token = product.unflatten(-1, self._shapes[index]).sum(-1).flatten(0, -2)
        # [windows, units]
        by_mask = by_token.unflatten(0, (self.windows_of_batch, -1)).sum(1).double()
        # K_pred = 1/2 (dKL/dm)^2 (equation 4), mean over windows
        self.predictive[index] += by_mask.square().sum(0) / (2 * self._windows)

    def representational(self, tokens: int) -> list[torch.Tensor]:
        """`K_rep = ||A_u V_u||_F^2`, what a unit adds to the states (equation 5).

        As in the official code it is the mean over tokens and channels. `V_u` are the unit's
        columns of the output matrix; the norm is a sum over products of the Gram matrices of both.

        Args:
            tokens: number of all tokens.
        """
        scores = []
        for gram, (linear, _), shape in zip(
            self._grams, self._projections, self._shapes, strict=True
        ):
            columns = linear.weight.double().unflatten(1, shape)
            norms = (gram * _unit_grams(columns)).sum((1, 2))
            scores.append(norms / (tokens * linear.out_features))
        return scores


def _unit_grams(x: torch.Tensor) -> torch.Tensor:
    """The Gram matrix of the channels of each unit over rows, `[units, size, size]`.

    Args:
        x: `[rows, units, size]`.
    """
    if x.shape[2] == 1:
        # einsum would go through the units one by one
        return x.square().sum(0)[..., None]
    return torch.einsum("tuc,tud->ucd", x, x)
