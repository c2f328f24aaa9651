"""Refit a sublayer of a pruned model, so that its sum with the residual comes closest to the unpruned model's.

Park et al., K-prune (ICLR 2024, arXiv 2308.03449), equation 5 and its weight tuning.
"""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from .blocks import BlockStep
from .sublayers import Sublayers, sublayers

_DAMPING = 1e-6  # of the mean diagonal, towards the old weights: directions that the text does not show keep them


def examples(step: BlockStep, whole: BlockStep, of_mlp: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batch by batch A `[tokens, in]`, what enters the output matrix of one sublayer of the student's block `step`, and
    Y - X `[tokens, out]`, what that sublayer should add to its residual X to arrive at the sum Y of the teacher's.

    Args:
        step, whole: the same block of student and teacher, each of its own `walk`.
    """
    parts, theirs = sublayers(step.module), sublayers(whole.module)
    batches = zip(step.hidden.split(step.batch_size), whole.hidden.split(step.batch_size), strict=True)
    for mine, teachers in batches:
        with _watched(parts) as seen:
            step.run(mine)
            x, a, _ = _states(parts, seen, mine.to(step.device), of_mlp)
        with _watched(theirs) as seen:
            whole.run(teachers)
            x_teacher, _, added = _states(theirs, seen, teachers.to(step.device), of_mlp)
        yield a, x_teacher + added - x


@contextlib.contextmanager
def _watched(parts: Sublayers) -> Iterator[dict[nn.Module, tuple[torch.Tensor, torch.Tensor]]]:
    """While open, input and output of the block's matrices that `_states` needs, as `[tokens, width]`."""
    seen = {}

    def hook(linear, inputs, output):
        seen[linear] = inputs[0].flatten(0, -2), output.flatten(0, -2)

    handles = [linear.register_forward_hook(hook) for linear in (parts.out, parts.first[0], parts.last)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _states(parts: Sublayers, seen: dict, entered: torch.Tensor, of_mlp: bool) -> tuple[torch.Tensor, ...]:
    """X, A and Sub(X) of one sublayer, each `[tokens, ...]`: the residual, the activations of its units and what it
    adds, before any norm that follows.

    Args:
        seen: from `_watched`, after the block ran on `entered [windows, length, width]`.
    """
    residual = entered.flatten(0, -2)
    if not of_mlp:
        return residual, *seen[parts.out]
    residual = seen[parts.first[0]][0] if parts.post_norm else residual + seen[parts.out][1]
    return residual, *seen[parts.last]


def refit(linear: nn.Linear, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """The weights that bring `linear(A)` closest to Y - X over all examples, the bias as it is: least squares by normal
    equations in float64, damped towards the old weights.

    Args:
        pairs: A and Y - X as from `examples`.
    """
    gram = right = 0
    for a, wanted in pairs:
        a, wanted = a.double(), wanted.double() - (0 if linear.bias is None else linear.bias.double())
        gram, right = gram + a.T @ a, right + a.T @ wanted
    damping = _DAMPING * gram.diagonal().mean() + torch.finfo(torch.float64).tiny
    gram.diagonal().add_(damping)
    old = linear.weight.double().T
    linear.weight.copy_(torch.cholesky_solve(right + damping * old, torch.linalg.cholesky(gram)).T)
