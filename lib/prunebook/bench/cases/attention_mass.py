"""Attention mass of a prompt's keys, beside eager attention and attention without the mass."""

from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F

from ...kernels.attention.mass import attention_mass, attention_mass_reference
from ...kernels.attention.noise import Perturbation, stream_of
from .. import work
from ..case import Case, MissingError, Operands, Provider
from ..record import CONTROL

KERNEL = "attention-mass"
_HEADS = 32
_WIDTH = 128
# Allowed relative error of an entry. Eager attention rounds logits and weights to bfloat16.
_ALLOWED = 2e-3
_ALLOWED_EAGER = 0.2
_EAGER_BYTES = 8  # a weight takes a bfloat16 logit, its softmax in float32, and that in bfloat16
_NOISE_BYTES = 24  # a draw takes three of the int64 that it is hashed from
_EAGER_SHARE = 4  # eager attention may take one in four bytes of the device's memory
_SIZES = ((4096, 0), (32768, 1), (16384, 2))  # (tokens, rank)


def cases() -> list[Case]:
    """The cases of this family."""
    plain = [
        case(tokens, kv_heads, rank=rank + int(kv_heads == _HEADS))
        for (tokens, rank), kv_heads in product(_SIZES, (8, _HEADS))
    ]
    return [*plain, case(4096, 8, rank=1, noise=True)]


def case(
    tokens: int,
    kv_heads: int,
    rank: int,
    heads: int = _HEADS,
    width: int = _WIDTH,
    noise: bool = False,
) -> Case:
    """A prompt whose tokens are all real.

    Args:
        tokens: tokens of the prompt.
        kv_heads: number of KV heads.
        rank: order of importance.
        heads: number of query heads.
        width: width of a head.
        noise: add the noise of Keyformer to the logits; its draws count no operations.
    """
    scaling = width**-0.5
    note = "the square matrix of weights in bfloat16, its softmax in float32"
    settings = {"keys": f"GQA-{kv_heads}"}
    if kv_heads == heads:
        settings["keys"] = "MHA"
    if noise:
        note += "; draws by the same hash, in torch"
        settings["noise"] = "Gumbel"
    providers = [
        Provider("prunebook", partial(_by, attention_mass, scaling)),
        Provider(
            "eager attention, summed",
            partial(_eager, scaling),
            prepare=_needs_memory,
            allowed=_ALLOWED_EAGER,
            note=note,
        ),
        Provider(
            "torch, queries in blocks",
            partial(_by, attention_mass_reference, scaling),
            note="our reference in torch, float32: memory for a block of queries alone",
        ),
        Provider(
            "scaled_dot_product_attention alone",
            partial(_attention, scaling),
            role=CONTROL,
            note="the attention that a prompt costs anyhow; tells no mass",
        ),
    ]
    if noise:
        providers.append(
            Provider(
                "mass without noise",
                lambda o: _by(attention_mass, scaling, o | {"perturbation": None}),
                role=CONTROL,
                note="what draws cost is the difference",
            )
        )
    return Case(
        KERNEL,
        {"tokens": tokens, "heads": heads, "width": width},
        work.attention_mass(tokens, heads, kv_heads, width),
        partial(_operands, tokens, heads, kv_heads, width, noise),
        partial(_truth, scaling),
        _error,
        providers,
        settings=settings,
        allowed=_ALLOWED,
        rank=rank,
        seconds=15 if tokens <= 4096 else 40,
    )


def _operands(
    tokens: int, heads: int, kv_heads: int, width: int, noise: bool, generator: torch.Generator
) -> Operands:
    options = {"generator": generator, "device": generator.device}
    names = {"query": heads, "keys": kv_heads, "values": kv_heads}
    drawn = {
        name: torch.randn(1, n, tokens, width, **options).bfloat16() for name, n in names.items()
    }
    positions = torch.arange(tokens, device=generator.device)[None]
    perturbation = None
    if noise:
        temperature = torch.ones(1, device=generator.device)
        perturbation = Perturbation(temperature, positions, stream_of(0, 1))
    return drawn | {"positions": positions, "perturbation": perturbation}


def _truth(scaling: float, o: Operands) -> torch.Tensor:
    """The reference in float64."""
    exact = {name: o[name].double() for name in ("query", "keys")}
    return _by(attention_mass_reference, scaling, o | exact)


def _by(mass: Callable, scaling: float, o: Operands) -> torch.Tensor:
    return mass(o["query"], o["keys"], o["positions"], scaling, perturbation=o["perturbation"])


def _error(result: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest relative error of an entry."""
    return ((result - truth).abs() / truth).max().item()


def _needs_memory(o: Operands) -> Operands:
    """The operands; raises `MissingError` where eager attention would fill the device."""
    if o["query"].is_cuda:
        _, heads, tokens, _ = o["query"].shape
        each = _EAGER_BYTES
        if o["perturbation"] is not None:
            each += _NOISE_BYTES
        needed = each * heads * tokens**2
        there = torch.cuda.mem_get_info(o["query"].device)[1]
        if needed > there / _EAGER_SHARE:
            raise MissingError(
                f"takes {needed / 1e9:.0f} GB for its weights, more than a quarter of the memory"
            )
    return o


def _eager(scaling: float, o: Operands) -> torch.Tensor:
    query = o["query"]
    keys = o["keys"]
    kv_heads, tokens = keys.shape[1:3]
    keys = keys.repeat_interleave(query.shape[1] // kv_heads, 1)
    hidden = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).triu(1)
    logits = (query @ keys.mT).mul_(scaling)
    if o["perturbation"] is not None:
        grouped = logits.unflatten(1, (kv_heads, -1))
        logits = o["perturbation"].of(grouped, o["positions"][:, None]).flatten(1, 2)
    logits = logits.masked_fill_(hidden, float("-inf"))
    weights = logits.softmax(-1, dtype=torch.float32).to(query.dtype)
    return weights.sum(2, dtype=torch.float32).unflatten(1, (kv_heads, -1)).sum(2)


def _attention(scaling: float, o: Operands) -> torch.Tensor:
    return F.scaled_dot_product_attention(
        o["query"], o["keys"], o["values"], is_causal=True, scale=scaling, enable_gqa=True
    )
