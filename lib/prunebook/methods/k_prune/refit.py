"""Refit a sublayer of a pruned model, so that its sum with the residual comes closest to the
unpruned model's.

Park et al., K-prune (ICLR 2024, arXiv 2308.03449), equation 5 and its weight tuning.
"""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from ...errors import UserError, not_finite
from ...models.anatomy import Sublayers, sublayers
from ...passes.sequential import BlockStep

_DIFFERENCE = 0.02  # that is allowed, relative to the largest entry of what sublayers add


@torch.no_grad()
def check_sums(step: BlockStep) -> None:
    """Raise a `UserError` unless a block adds what its output matrices give, and nothing else, to
    its input, which `examples` takes for granted: Gemma norms it first, Granite scales it."""
    parts = sublayers(step.module)
    if parts.post_norm:  # by construction; what follows the sum is a norm
        return
    batch = step.hidden[: step.batch_size]
    with _watched(parts) as seen:
        output = step.run(batch).flatten(0, -2)
    residual, _, adds = _states(parts, seen, batch.to(step.device), of_mlp=True)
    rounding = 2 * torch.finfo(output.dtype).eps * output.abs().max()
    if (output - residual - adds).abs().max() > _DIFFERENCE * adds.abs().max() + rounding:
        raise UserError(
            f"{type(step.module).__name__} norms or scales what its sublayers add, so that their "
            "output matrices cannot be refitted to hidden states; use a model that adds it as it "
            "is, or tune=False"
        )


def examples(
    step: BlockStep, whole: BlockStep, of_mlp: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batch by batch A `[tokens, in]`, what enters the output matrix of one sublayer of the
    student's block `step`, and `[tokens, out]` what its sum with the residual lacks of the
    teacher's.

    Args:
        step, whole: the same block of student and teacher, each of its own `walk`.
    """
    parts = sublayers(step.module)
    theirs = sublayers(whole.module)
    batches = zip(
        step.hidden.split(step.batch_size), whole.hidden.split(step.batch_size), strict=True
    )
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
    """While open, input and output of the block's matrices that `_states` needs, as `[tokens,
    width]`."""
    seen = {}

    def hook(linear, inputs, output):
        seen[linear] = inputs[0].flatten(0, -2), output.flatten(0, -2)

    handles = [
        linear.register_forward_hook(hook) for linear in (parts.out, parts.first[0], parts.last)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _states(
    parts: Sublayers, seen: dict, entered: torch.Tensor, of_mlp: bool
) -> tuple[torch.Tensor, ...]:
    """X, A and Sub(X) of one sublayer, each `[tokens, ...]`: the residual, the activations of its
    units and what it adds, before any norm that follows.

    Args:
        seen: from `_watched`, after the block ran on `entered [windows, length, width]`.
    """
    residual = entered.flatten(0, -2)
    if not of_mlp:
        return residual, *seen[parts.out]
    residual = seen[parts.first[0]][0] if parts.post_norm else residual + seen[parts.out][1]
    return residual, *seen[parts.last]


def refit(
    linear: nn.Linear, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], damping: float
) -> None:
    """Change the weights of an output matrix so that it gives what is lacking, the bias as it is:
    least squares by the normal equations of the change, so that what is right already stays.

    Args:
        pairs: A and what is lacking, as from `examples`.
        damping: of the change, as a fraction of the mean diagonal.

    Raises:
        UserError: activations that are not finite, or too little damping for inputs that depend on
            each other.
    """
    gram = right = 0
    for a, lacking in pairs:
        a = a.double()  # normal equations square the condition number
        lacking = lacking.double()
        gram = gram + a.T @ a
        right = right + a.T @ lacking
    if not (gram.isfinite().all() and right.isfinite().all()):
        raise not_finite("activations of a sublayer to refit")
    gram.diagonal().add_(damping * gram.diagonal().mean() + torch.finfo(torch.float64).tiny)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed:
        raise UserError(
            f"{len(gram)} inputs of a sublayer to refit depend on each other, which damping "
            f"{damping:g} is too small for; use more, as 1e-6, or more calibration text"
        )
    linear.weight.add_(torch.cholesky_solve(right, factor).T)
