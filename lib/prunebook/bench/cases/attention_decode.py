"""Decode attention over a cache with the mass of each slot, beside eager attention, and attention
without the mass."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from ...kernels.attention_decode import decode_reference, decode_with_mass
from ...kernels.noise import Perturbation, stream_of
from .. import work
from ..case import Case, Operands, Provider, relative_error
from ..record import CONTROL

KERNEL = "attention-decode"
_HEADS = 32
_WIDTH = 128
# Relative errors of the output, which is rounded to bfloat16, and of each mass; eager attention
# rounds logits, too.
_ALLOWED = 4e-3
_ALLOWED_EAGER = 0.2


def cases() -> list[Case]:
    return [
        case(batch, slots, kv_heads, rank=rank + int(kv_heads == _HEADS))
        for batch, slots, rank in ((1, 32768, 0), (1, 4096, 1), (16, 4096, 1))
        for kv_heads in (8, _HEADS)
    ] + [case(16, 4096, 8, rank=2, noise=True)]


def case(
    batch: int,
    slots: int,
    kv_heads: int,
    rank: int,
    heads: int = _HEADS,
    width: int = _WIDTH,
    noise: bool = False,
) -> Case:
    """One token of each row over a cache that has reached its budget: every slot is held. With
    `noise` that of Keyformer, whose draws count no operations."""
    scaling = width**-0.5
    providers = [
        Provider("prunebook", partial(_by, decode_with_mass, scaling)),
        Provider(
            "eager attention, summed",
            partial(_eager, scaling),
            allowed=_ALLOWED_EAGER,
            note="bfloat16, its softmax "
            "in float32; keys and "
            "values are "
            "not repeated "
            "for the heads "
            "of a group" + ("; draws by the same hash, in torch" if noise else ""),
        ),
        Provider(
            "torch, float32",
            partial(_by, decode_reference, scaling),
            note="our reference in torch: keys in float32, products too",
        ),
        Provider(
            "scaled_dot_product_attention alone",
            partial(_attention, scaling),
            role=CONTROL,
            note="the attention that a token costs anyhow; tells no mass",
        ),
    ]
    return Case(
        KERNEL,
        {"batch": batch, "slots": slots, "heads": heads, "width": width},
        work.attention_decode(batch, slots, heads, kv_heads, width),
        partial(_operands, batch, slots, heads, kv_heads, width, noise),
        lambda o: _by(
            decode_reference, scaling, o | {n: o[n].double() for n in ("query", "keys", "values")}
        ),
        _error,
        providers,
        settings={"keys": "MHA" if kv_heads == heads else f"GQA-{kv_heads}"}
        | ({"noise": "Gumbel"} if noise else {}),
        allowed=_ALLOWED,
        rank=rank,
        seconds=10,
    )


def _operands(
    batch: int,
    slots: int,
    heads: int,
    kv_heads: int,
    width: int,
    noise: bool,
    generator: torch.Generator,
) -> Operands:
    options = {"generator": generator, "device": generator.device}
    keys, values = (
        torch.randn(batch, kv_heads, slots, width, **options).bfloat16() for _ in range(2)
    )
    query = torch.randn(batch, heads, width, **options).bfloat16()
    positions = torch.arange(slots, device=generator.device).repeat(batch, kv_heads, 1)
    temperature = torch.full((1,), 1.5, device=generator.device)
    newest = positions[:1, 0, -1:]
    perturbation = Perturbation(temperature, newest, stream_of(0, 1)) if noise else None
    return {
        "query": query,
        "keys": keys,
        "values": values,
        "positions": positions,
        "perturbation": perturbation,
    }


def _by(decode: Callable, scaling: float, o: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    return decode(o["query"], o["keys"], o["values"], o["positions"], scaling, o["perturbation"])


def _error(
    result: tuple[torch.Tensor, torch.Tensor], truth: tuple[torch.Tensor, torch.Tensor]
) -> float:
    (output, mass), (wanted, wanted_mass) = result, truth
    return max(
        relative_error(output, wanted), ((mass - wanted_mass).abs() / wanted_mass).max().item()
    )


def _eager(scaling: float, o: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    keys = o["keys"]
    query = o["query"].unflatten(1, (keys.shape[1], -1))
    logits = (query @ keys.mT).mul_(scaling)
    weights = scored = logits.softmax(-1, dtype=torch.float32)
    if o["perturbation"] is not None:
        scored = (
            o["perturbation"]
            .of(logits[:, :, :, None], o["positions"])
            .squeeze(3)
            .softmax(-1, dtype=torch.float32)
        )
    return (weights.to(keys.dtype) @ o["values"]).flatten(1, 2), scored.sum(2)


def _attention(scaling: float, o: Operands) -> torch.Tensor:
    return F.scaled_dot_product_attention(
        o["query"][:, :, None], o["keys"], o["values"], scale=scaling, enable_gqa=True
    )
