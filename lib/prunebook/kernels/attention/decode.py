"""Decode attention of a pruned cache: one new token over the slots, and the mass of each slot.

    output[h] = sum over slots j: p[h, j] v[j],    mass[j] = sum over heads h of the group: p[h, j],
    p[h, j] = softmax over the held slots j of scaling q[h] k[j]

For Keyformer the mass, but not the output, comes from perturbed logits, see `noise`.

Here are the checks and the reference in torch; the kernels of a GPU are in `decode_kernels`.
"""

import torch

from ...errors import UserError
from ..launch import runs_natively
from .decode_kernels import launch_decode
from .mass import MASKED, grouped_logits
from .noise import Perturbation

_KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_WIDEST = 512  # most bytes of a head: three stages of its tiles fit the shared memory of an H100

_LARGEST = 64  # most query heads of a group


def decode_with_mass(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    positions: torch.Tensor,
    scaling: float,
    perturbation: Perturbation | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of one token of each row over the held slots, with the mass of each slot.

    The mass is the sum of the weights from the query heads of a KV head. There are no gradients.

    Args:
        query: `[batch, heads, width]`. Query heads `h // group` share a KV head.
        keys: `[batch, kv heads, slots, width]`, of the dtype of `query`, after the rotary
            embedding, in any order.
        values: `[batch, kv heads, slots, width of values]`, of any float dtype, e.g. under
            autocast.
        positions: int64 `[batch, kv heads, slots]`, -1 for empty slots. Empty slots count nothing,
            but their values must be finite.
        scaling: factor of the logits.
        perturbation: perturbation, of one query, of the scaled logits whose softmax is the mass;
            None for none.

    Returns:
        The output `[batch, heads, width of values]` in the dtype of the values, and the mass
        `[batch, kv heads, slots]` in float32, or float64 for float64. Both are 0 for a KV head that
        holds no slot.

    Raises:
        UserError: shapes or dtypes that do not fit each other.
    """
    _check(query, keys, values, positions)
    if perturbation is not None:
        perturbation.check(query.shape[0], 1, query.device)
    widest = max(query.shape[2], values.shape[3]) * query.element_size()
    fits = query.dtype in _KERNEL_DTYPES and query.dtype == values.dtype
    fits = fits and widest <= _WIDEST and query.shape[1] <= _LARGEST * keys.shape[1]
    fits = fits and query.numel() and values.numel()
    if fits and runs_natively(query, keys, values, positions, tiles=True):
        return launch_decode(query, keys, values, positions, scaling, perturbation)
    return decode_reference(query, keys, values, positions, scaling, perturbation)


def decode_reference(
    query, keys, values, positions, scaling, perturbation=None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`decode_with_mass` in torch, for checked arguments; it defines what the kernels compute."""
    empty = (positions < 0)[:, :, None]

    def softmax(logits: torch.Tensor) -> torch.Tensor:
        # MASKED is finite: where no slot is held, there is no NaN.
        return logits.squeeze(3).masked_fill(empty, MASKED).softmax(-1).masked_fill_(empty, 0)

    logits = grouped_logits(query[:, :, None], keys, scaling)
    weights = softmax(logits)
    scored = weights
    if perturbation is not None:
        scored = softmax(perturbation.of(logits, positions))
    return (weights.to(values.dtype) @ values).flatten(1, 2), scored.sum(2)


def _check(query, keys, values, positions) -> None:
    shape = list(query.shape)
    if query.ndim != 3 or not query.is_floating_point():
        raise UserError(f"query is {query.dtype} {shape}; use floats [batch, heads, width]")
    batch, heads, width = shape
    fits = (
        keys.ndim == 4 and keys.shape[1] and not heads % keys.shape[1] and keys.dtype == query.dtype
    )
    if not fits or [keys.shape[0], keys.shape[3]] != [batch, width]:
        needed = f"{query.dtype} [{batch}, a divisor of {heads}, slots, {width}]"
        raise UserError(f"keys are {keys.dtype} {list(keys.shape)}; query {shape} needs {needed}")
    held = ", ".join(map(str, keys.shape[:3]))
    if values.ndim != 4 or values.shape[:3] != keys.shape[:3] or not values.is_floating_point():
        given = f"{values.dtype} {list(values.shape)}"
        raise UserError(f"values: {given}; keys {list(keys.shape)} need floats [{held}, width]")
    if positions.shape != keys.shape[:3] or positions.dtype != torch.int64:
        given = f"{positions.dtype} {list(positions.shape)}"
        raise UserError(f"positions: {given}; keys {list(keys.shape)} need torch.int64 [{held}]")
