"""What a sublayer of a pruned model lacks, beside the states of the unpruned model.

Park et al., K-prune (ICLR 2024, arXiv 2308.03449), equation 5 as numbered in its first version. X
is the residual that a sublayer's output is added to, A the activations of its units, and Sub(X)
what it adds; the teacher is the unpruned model.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from ...errors import UserError
from ...models.anatomy import Sublayers, sublayers
from ...passes.hooks import forward_hooks
from ...passes.sequential import BlockStep

# Difference that is allowed between a block's output and the sum of its sublayers, relative to the
# largest entry of what they add.
_TOLERANCE = 0.02

# Module -> its input and its output, each `[tokens, width]`.
Flows = dict[nn.Module, tuple[torch.Tensor, torch.Tensor]]


@torch.no_grad()
def check_sums(step: BlockStep) -> None:
    """Raise a `UserError` unless a block adds to its input just what its output matrices give.

    `examples` takes that for granted, but Gemma norms what is added first, and Granite scales it.
    """
    parts = sublayers(step.module)
    # By construction: what follows the sum is a norm.
    if parts.post_norm:
        return
    batch = step.hidden[: step.batch_size]
    with _recorded(parts) as flows:
        output = step.run(batch).flatten(0, -2)
    residual, _, added = _states(parts, flows, batch.to(step.device), of_mlp=True)
    rounding = 2 * torch.finfo(output.dtype).eps * output.abs().max()
    if (output - residual - added).abs().max() > _TOLERANCE * added.abs().max() + rounding:
        raise UserError(
            f"{type(step.module).__name__} norms or scales what its sublayers add, so that their "
            "output matrices cannot be refitted to hidden states; use a model that adds it as it "
            "is, or tune=False"
        )


def examples(
    step: BlockStep, teacher_step: BlockStep, of_mlp: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The pairs that one sublayer's output matrix is fitted to, batch by batch.

    Args:
        step: a block of the student, from its own `walk`.
        teacher_step: the same block of the teacher, from its own.
        of_mlp: the sublayer is the MLP, not the attention.

    Yields:
        A of the student, `[tokens, in]`, and the states that it lacks,
        `X_T + Sub_T(X_T) - X_S - Sub_S(X_S)` (equation 5), `[tokens, out]`.
    """
    parts = sublayers(step.module)
    teacher_parts = sublayers(teacher_step.module)
    batches = zip(
        step.hidden.split(step.batch_size),
        teacher_step.hidden.split(step.batch_size),
        strict=True,
    )
    for batch, teacher_batch in batches:
        # X_S, A_S and Sub_S(X_S) of the student as it is cut by now
        with _recorded(parts) as flows:
            step.run(batch)
            x, a, added = _states(parts, flows, batch.to(step.device), of_mlp)
        # X_T and Sub_T(X_T) of the teacher
        with _recorded(teacher_parts) as flows:
            teacher_step.run(teacher_batch)
            x_teacher, _, teacher_added = _states(
                teacher_parts, flows, teacher_batch.to(step.device), of_mlp
            )
        yield a, (x_teacher + teacher_added) - (x + added)


@contextlib.contextmanager
def _recorded(parts: Sublayers) -> Iterator[Flows]:
    """Record what enters and leaves the matrices that `_states` needs, while a block runs."""
    flows: Flows = {}

    def hook(linear, inputs, output):
        flows[linear] = inputs[0].flatten(0, -2), output.flatten(0, -2)

    with forward_hooks((linear, hook) for linear in (parts.out, parts.first[0], parts.last)):
        yield flows


def _states(
    parts: Sublayers, flows: Flows, entered: torch.Tensor, of_mlp: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """X, A and Sub(X) of one sublayer, each `[tokens, ...]`, before any norm that follows.

    Args:
        parts: the sublayers of the block.
        flows: what `_recorded` holds after the block ran.
        entered: what the block ran on, `[windows, length, width]`.
        of_mlp: the sublayer is the MLP, not the attention.
    """
    residual = entered.flatten(0, -2)
    if not of_mlp:
        a, added = flows[parts.out]
        return residual, a, added
    a, added = flows[parts.last]
    if parts.post_norm:
        # BERT: the norm after the attention's sum gives what the MLP reads and is added to.
        return flows[parts.first[0]][0], a, added
    return residual + flows[parts.out][1], a, added
