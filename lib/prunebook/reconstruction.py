"""Refit a sublayer of a pruned model, so that its sum with the residual comes closest to the unpruned model's.

Park et al., K-prune (ICLR 2024, arXiv 2308.03449), equation 5 and its weight tuning.
"""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from .blocks import BlockStep
from .sublayers import Sublayers, sublayers


def examples(step: BlockStep, whole: BlockStep, of_mlp: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batch by batch A `[tokens, in]`, what enters the output matrix of one sublayer of the student's block `step`, and
    `[tokens, out]` what its sum with the residual lacks of the teacher's.

    Args:
        step, whole: the same block of student and teacher, each of its own `walk`.
    """
    parts, theirs = sublayers(step.module), sublayers(whole.module)
    batches = zip(step.hidden.split(step.batch_size), whole.hidden.split(step.batch_size), strict=True)
    for mine, teachers in batches:
        with _watched(parts) as seen:
            step.run(mine)
            x, a, adds = _states(parts, seen, mine.to(step.device), of_mlp)
        with _watched(theirs) as seen:
            whole.run(teachers)
            x_teacher, _, adds_teacher = _states(theirs, seen, teachers.to(step.device), of_mlp)
        yield a, (x_teacher + adds_teacher) - (x + adds)


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


def refit(linear: nn.Linear, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], damping: float) -> None:
    """Change the weights of an output matrix so that it gives what is lacking, the bias as it is: least squares by the
    normal equations of the change, so that what is right already stays.

    Args:
        pairs: A and what is lacking, as from `examples`. damping: of the change, as a fraction of the mean diagonal.
    """
    gram = right = 0
    for a, lacking in pairs:
        a, lacking = a.float(), lacking.float()
        gram, right = gram + (a.T @ a).double(), right + (a.T @ lacking).double()
    gram.diagonal().add_(damping * gram.diagonal().mean() + torch.finfo(torch.float64).tiny)
    linear.weight.add_(torch.cholesky_solve(right, torch.linalg.cholesky(gram)).T)
