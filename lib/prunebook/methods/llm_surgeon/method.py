"""The LLM Surgeon: remove what costs the training loss least, over all layers at once, and let the
rest make up for it.

van der Ouderaa et al., The LLM Surgeon (ICLR 2024, arXiv 2312.17244); official code
Qualcomm-AI-research/llm-surgeon at 7267344, with the factors of its `--use_iad` and without LoRA.

Differences from the official code: rows and columns go by their joint optimum, unless
`max_correlate` is given; groups of entries see the updates of earlier ones (its `--addupdate`);
linears that read the same input share its factor; a removed row takes its bias along, and no other
bias is a candidate; entries meet the global count exactly (`<=` there removes one more, and ties);
n:m groups are aligned also for layers without bias; costs are in nats per token, as the gradient is
that of the summed loss (there: of the mean, a constant factor); L-OBD sees all sequences, and rows
by A.

Memory: two float32 matrices, `[in, in]` and `[out, out]`, for every linear of the model at once
(its inputs' shared by q/k/v and by gate/up), and a copy of the A's of siblings that lost different
columns: 1.1 GB for SmolLM2-135M, 64 GB for a 7-billion model; 4 bytes a weight for the costs of
    entries; logits of one batch. They stand where the model stands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from ...errors import UserError
from ...kernels.masking import apply_mask
from ...models.anatomy import find_blocks, weight_of
from ...models.loading import on_device
from ...passes.backward import backpropagate
from ...passes.precision import PRECISIONS, matmul_precision
from ...sparsity.patterns import NofM, Pattern, count_removed, keep_mask, keep_masks, make_pattern
from ...validation import check_choices, check_number, check_whole
from ..base import Method
from . import fisher
from .cheapest import cheapest_rows_columns

_ENTRIES = 2000  # correlated with each other: the official scripts for entries and 2:4
_CHOICES = {
    "structure": ("elements", "rows+columns"),
    "variant": ("surgeon", "k-obd", "l-obd"),
    "scope": ("model", "layer"),
    "precision": PRECISIONS,
}


@dataclass
class _Layer:
    """A linear during one shot: what of it is alive, what its parts cost, and the inverse factors
    of the living part.

    `W` is float32 `[R, C]`, with the bias as one more column where there is one; `rows` and
    `columns` index the living. `costs` are those of rows and columns, or of entries, or of n:m
    groups; the lowest go first.
    """

    linear: torch.nn.Module
    W: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    inverses: tuple[torch.Tensor, torch.Tensor] | None = None
    costs: torch.Tensor | tuple[torch.Tensor, torch.Tensor] = None


@dataclass(frozen=True)
class LLMSurgeon(Method):
    """Pruning by a Kronecker-factored Fisher matrix, with one threshold over all layers, in shots.

    Args:
        sparsity: fraction of the weights removed, in [0, 1), met exactly for entries and up to one
            row or column else.
        pattern: n:m instead, as '2:4', for entries.
        structure: `elements`, or `rows+columns` of every matrix.
        shots: T; shot t aims at `sparsity * t / T` (n:m: a fraction t / T of the groups) with new
            factors.
        damping: added to the diagonal of a factor before its inverse, as a fraction of the
            diagonal's mean.
        max_correlate: how many removed entries, or rows, or columns, are updated as one group
            (entries: whole rows); None for 2,000 entries, and all rows and columns jointly.
        variant: `surgeon`; `k-obd` takes diagonals of factors in place of inverses and updates
            nothing; `l-obd` also takes G = I. Both are the paper's baselines.
        scope: one threshold for the `model` (the paper's), or one sparsity for every `layer`.
        precision: of the forward and backward passes, `exact` (the model's dtype) or `fast`
            (bfloat16 products).

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    pattern: str | Pattern | None = None
    structure: str = "elements"
    shots: int = 5
    damping: float = 0.01
    max_correlate: int | None = None
    variant: str = "surgeon"
    scope: str = "model"
    precision: str = "exact"

    paper: ClassVar[str | None] = "llm-surgeon"
    sparsity_of: ClassVar[str | None] = "the weights of all linears in the blocks"

    def __post_init__(self):
        check_choices(self, "llm-surgeon", _CHOICES)
        check_whole("shots", self.shots, 1)
        if self.max_correlate is not None:
            check_whole("max_correlate", self.max_correlate, 1)
        check_number("damping", self.damping, "a fraction >= 0, as 0.01")
        if getattr(self.target, "scope", self.scope) != self.scope:
            raise UserError(
                f"pattern {self.target} is not allowed for llm-surgeon; use sparsity and scope, or "
                "n:m"
            )
        if self.structure != "elements" and isinstance(self.target, NofM):
            raise UserError(
                f"pattern {self.target} is not allowed for rows+columns; use sparsity or elements"
            )

    @property
    def target(self) -> Pattern:
        return make_pattern(self.sparsity, self.pattern, self.scope)

    def describe(self) -> str:
        """What the report calls the pattern."""
        return (
            str(self.target) if self.structure == "elements" else f"{self.target}, rows and columns"
        )

    @torch.no_grad()
    def prune(
        self,
        model,
        calibration: torch.Tensor,
        progress: str | None = None,
        device=None,
        moments=None,
    ) -> None:
        """Prune all linears of the decoder blocks in place.

        Args:
            calibration: int64 `[n, length]`, length at least 2.
            progress: label of a progress bar, None for none.
            device: where the whole model computes; None for where it is.
            moments: what `backpropagate(model, calibration, fisher.SecondMoment)` returned for the
                model as it is, so that many settings can share the first shot's pass; None to take
                it here.
        """
        # the study takes what it has used out of it
        moments = moments and (moments[0], dict(moments[1]))
        with on_device(model, device):
            for shot in range(1, self.shots + 1):
                label = progress and f"{progress} {shot}/{self.shots}"
                if shot > 1 or moments is None:
                    moments = backpropagate(
                        model,
                        calibration,
                        fisher.SecondMoment,
                        precision=self.precision,
                        progress=label,
                    )
                with matmul_precision(model.device, "exact"):
                    layers = self._study(model, *moments)
                moments = None  # the factors of the old weights; freed before the next pass
                for layer, goes in zip(
                    layers, self._choose(layers, shot / self.shots), strict=True
                ):
                    self._remove(layer, goes)

    def _study(self, model, inputs: Mapping, gradients: dict) -> list[_Layer]:
        """Inverse factors and costs of every linear, from the second moments of its inputs and
        output gradients."""
        linears = {
            n: linear
            for block in find_blocks(model)
            for n, linear in block.linears.items()
            if n in inputs
        }
        layers = []
        for name, linear in linears.items():
            W = weight_of(linear).float()
            if linear.bias is not None:
                W = torch.cat([W, linear.bias.data.float()[:, None]], dim=1)
            of_inputs = inputs[name]
            of_gradients = gradients.pop(name)
            bias = linear.bias is not None
            A = of_inputs.matrix(bias)
            G = of_gradients.matrix()
            if self.variant == "l-obd":
                G = torch.eye(len(G), device=G.device)
            living = (W != 0).any(1) & (G.diagonal() > 0), (W != 0).any(0) & (A.diagonal() > 0)
            rows, columns = (alive.nonzero().flatten() for alive in living)
            layer = _Layer(linear, W, rows, columns)
            A = fisher.part_of(A, columns, columns)
            G = fisher.part_of(G, rows, rows)
            if self.variant == "surgeon":
                layer.inverses = (
                    of_gradients.inverse(self.damping, living[0]),
                    of_inputs.inverse(self.damping, living[1], bias),
                )
                g, a = (1 / inverse.diagonal() for inverse in layer.inverses)
            else:
                g = G.diagonal()
                a = A.diagonal()
            layer.costs = self._costs(layer, A, G, g, a)
            layers.append(layer)
        return layers

    def _costs(self, layer: _Layer, A, G, g, a):
        """What is dead costs 0, what is zero already less than that; a bias is no candidate."""
        R, C = weight_of(layer.linear).shape
        living = fisher.part_of(layer.W, layer.rows, layer.columns)
        if self.structure == "rows+columns":
            rows = living.new_zeros(R)
            columns = living.new_zeros(layer.W.shape[1])
            rows[layer.rows] = fisher.row_costs(living, A, g)
            columns[layer.columns] = fisher.column_costs(living, G, a)
            rows[(layer.W == 0).all(1)] = -1
            columns[(layer.W == 0).all(0)] = -1
            return rows, columns[:C]
        costs = torch.zeros_like(layer.W)
        costs[layer.rows[:, None], layer.columns] = fisher.element_costs(living, g, a)
        return costs.masked_fill_(layer.W == 0, -1)[:, :C]

    def _choose(self, layers: list[_Layer], share: float) -> list:
        """What goes to meet `share` of the target: for each layer rows `[R]` and columns `[C]`, or
        entries `[R, C]`."""
        costs = [layer.costs for layer in layers]
        together = [costs] if self.scope == "model" else [[one] for one in costs]
        if self.structure == "rows+columns":
            sizes = [sum(len(r) * len(c) for r, c in some) for some in together]
            budgets = [count_removed(size, self.sparsity * share) for size in sizes]
            return [
                goes
                for some, n in zip(together, budgets, strict=True)
                for goes in cheapest_rows_columns(some, n)
            ]
        if not isinstance(self.target, NofM):
            return [~keep for some in together for keep in keep_masks(some, self.sparsity * share)]
        n = self.target.n
        m = self.target.m
        groups = [[fisher.group_costs(one, n, m) for one in some] for some in together]
        kept = [keep.repeat_interleave(m, 1) for some in groups for keep in keep_masks(some, share)]
        return [
            ~(keep | keep_mask(one, self.target)) for one, keep in zip(costs, kept, strict=True)
        ]

    def _remove(self, layer: _Layer, goes) -> None:
        """Update the living part of a linear, set what goes to zero and write it back."""
        W = layer.W
        rows = layer.rows
        columns = layer.columns
        if self.structure == "rows+columns":
            gone_rows = goes[0]
            gone_columns = W.new_zeros(W.shape[1], dtype=torch.bool)
            gone_columns[: len(goes[1])] = goes[1]
            gone = gone_rows[:, None] | gone_columns
        else:
            gone = torch.zeros_like(W, dtype=torch.bool)
            gone[:, : goes.shape[1]] = goes
        if not gone.any():
            return
        if layer.inverses is not None:
            living = fisher.part_of(W, rows, columns)
            if self.structure == "rows+columns":
                which = (
                    gone_rows[rows].nonzero().flatten(),
                    gone_columns[columns].nonzero().flatten(),
                )
                living = fisher.remove_rows_columns(
                    living, *layer.inverses, *which, self.max_correlate
                )
            else:
                entries = gone[rows][:, columns]
                living = fisher.remove_elements(
                    living, *layer.inverses, entries, self.max_correlate or _ENTRIES
                )
            W[rows[:, None], columns] = living
        apply_mask(W, ~gone)
        weight = weight_of(layer.linear)
        weight.copy_(W[:, : weight.shape[1]])
        if layer.linear.bias is not None:
            layer.linear.bias.data.copy_(W[:, -1])
