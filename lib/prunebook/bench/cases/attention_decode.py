"""Decode attention with the mass of each slot, beside eager attention and plain attention."""

from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F

from ...kernels.attention.decode import decode_reference, decode_with_mass
from ...kernels.attention.noise import Perturbation, stream_of
from .. import work
from ..case import Case, Operands, Provider, relative_error
from ..record import CONTROL

KERNEL = "attention-decode"
_HEADS = 32
_WIDTH = 128
# Allowed relative error of the output, which is rounded to bfloat16, and of each mass. Eager
# attention also rounds logits.
_ALLOWED = 4e-3
_ALLOWED_EAGER = 0.2
_SIZES = ((1, 32768, 0), (1, 4096, 1), (16, 4096, 1))  # (batch, slots, rank)


def cases() -> list[Case]:
    """The cases of this family."""
    plain = [
        case(batch, slots, kv_heads, rank=rank + int(kv_heads == _HEADS))
        for (batch, slots, rank), kv_heads in product(_SIZES, (8, _HEADS))
    ]
    return [*plain, case(16, 4096, 8, rank=2, noise=True)]


def case(
    batch: int,
    slots: int,
    kv_heads: int,
    rank: int,
    heads: int = _HEADS,
    width: int = _WIDTH,
    noise: bool = False,
) -> Case:
    """One token of each row over a cache that has reached its budget: every slot is held.

    Args:
        batch: number of rows.
        slots: slots of the cache, for each row and KV head.
        kv_heads: number of KV heads.
        rank: order of importance.
        heads: number of query heads.
        width: width of a head.
        noise: add the noise of Keyformer to the logits; its draws count no operations.
    """
    scaling = width**-0.5
    note = (
        "bfloat16, its softmax in float32; keys and values are not repeated for the heads of a "
        "group"
    )
    settings = {"keys": f"GQA-{kv_heads}"}
    if kv_heads == heads:
        settings["keys"] = "MHA"
    if noise:
        note += "; draws by the same hash, in torch"
        settings["noise"] = "Gumbel"
    providers = [
        Provider("prunebook", partial(_by, decode_with_mass, scaling)),
        Provider(
            "eager attention, summed",
            partial(_eager, scaling),
            allowed=_ALLOWED_EAGER,
            note=note,
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
        partial(_truth, scaling),
        _error,
        providers,
        settings=settings,
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
    keys = torch.randn(batch, kv_heads, slots, width, **options).bfloat16()
    values = torch.randn(batch, kv_heads, slots, width, **options).bfloat16()
    query = torch.randn(batch, heads, width, **options).bfloat16()
    positions = torch.arange(slots, device=generator.device).repeat(batch, kv_heads, 1)
    perturbation = None
    if noise:
        temperature = torch.full((1,), 1.5, device=generator.device)
        newest = positions[:1, 0, -1:]
        perturbation = Perturbation(temperature, newest, stream_of(0, 1))
    return {
        "query": query,
        "keys": keys,
        "values": values,
        "positions": positions,
        "perturbation": perturbation,
    }


def _truth(scaling: float, o: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference in float64."""
    exact = {name: o[name].double() for name in ("query", "keys", "values")}
    return _by(decode_reference, scaling, o | exact)


def _by(decode: Callable, scaling: float, o: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    return decode(o["query"], o["keys"], o["values"], o["positions"], scaling, o["perturbation"])


def _error(
    result: tuple[torch.Tensor, torch.Tensor], truth: tuple[torch.Tensor, torch.Tensor]
) -> float:
    """The larger of the output's error and the largest error of a slot's mass, both relative."""
    output, mass = result
    true_output, true_mass = truth
    of_mass = ((mass - true_mass).abs() / true_mass).max().item()
    return max(relative_error(output, true_output), of_mass)


def _eager(scaling: float, o: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    keys = o["keys"]
    query = o["query"].unflatten(1, (keys.shape[1], -1))
    logits = (query @ keys.mT).mul_(scaling)
    weights = scored = logits.softmax(-1, dtype=torch.float32)
    if o["perturbation"] is not None:
        perturbed = o["perturbation"].of(logits[:, :, :, None], o["positions"])
        scored = perturbed.squeeze(3).softmax(-1, dtype=torch.float32)
    return (weights.to(keys.dtype) @ o["values"]).flatten(1, 2), scored.sum(2)


def _attention(scaling: float, o: Operands) -> torch.Tensor:
    return F.scaled_dot_product_attention(
        o["query"][:, :, None], o["keys"], o["values"], scale=scaling, enable_gqa=True
    )
