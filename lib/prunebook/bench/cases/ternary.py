"""The product with ternary weights in two bits each, beside dense products in bfloat16 and int8.

Shapes are those of bitnet.cpp's table for GPUs and of Llama-2-7B, whose weights that read the same
input are one product.
"""

from itertools import product

import torch
import torch.nn.functional as F

from ...kernels.matmul.ternary import KERNEL_TOKENS, launch_ternary, pack_ternary, ternary_linear
from .. import work
from ..case import Case, MissingError, Operands, Provider
from ..record import OWN

KERNEL = "ternary"
_GATE_UP = (22016, 4096)
_QKV = (12288, 4096)
_SQUARE = (4096, 4096)
_BITNET_CPP = ((2560, 2560), (13824, 2560), (20480, 3200))
_TOKENS = (1, 8, 16, 32, 256)
# Allowed error of bfloat16 results, which hold eight bits. Whole numbers are summed exactly.
_ALLOWED_BFLOAT16 = 0.02
_FEWEST = 17  # torch's int8 product takes at least so many tokens


def cases() -> list[Case]:
    """The cases of this family."""
    gate_up = [case(tokens, *_GATE_UP, rank=int(tokens not in (1, 16))) for tokens in _TOKENS]
    attention = [
        case(tokens, *shape, rank=1) for shape, tokens in product((_QKV, _SQUARE), (1, 32))
    ]
    bitnet_cpp = [case(1, *shape, rank=2) for shape in _BITNET_CPP]
    return [*gate_up, *attention, *bitnet_cpp]


def case(tokens: int, rows: int, columns: int, rank: int) -> Case:
    """The case of one number of tokens and one shape of the weight."""
    providers = [
        Provider(
            "prunebook",
            lambda o: ternary_linear(o["x"], o["packed"], o["scale"], o["x_scale"]),
            prepare=_pack,
        ),
        Provider(
            "prunebook, bfloat16 inputs",
            lambda o: ternary_linear(o["x"], o["packed"], o["scale"]),
            prepare=_pack_for_floats,
            role=OWN,
            allowed=_ALLOWED_BFLOAT16,
        ),
        Provider(
            "dense bfloat16",
            lambda o: F.linear(o["x"], o["weight"]),
            prepare=_dense,
            allowed=_ALLOWED_BFLOAT16,
        ),
        Provider(
            "dense int8",
            _int8,
            prepare=_for_int8,
            note=f"at least {_FEWEST} tokens; scales come after",
        ),
    ]
    if tokens > KERNEL_TOKENS:
        note = "the kernel where dispatch does not take it"
        providers.append(
            Provider("prunebook's kernel", _kernel, prepare=_pack, role=OWN, note=note)
        )
    return Case(
        KERNEL,
        {"tokens": tokens, "rows": rows, "columns": columns},
        work.ternary_product(tokens, rows, columns),
        lambda generator: _operands(generator, tokens, rows, columns),
        _truth,
        _error,
        providers,
        dtype="2 bits",
        allowed=1e-6,
        rank=rank,
        seconds=10,
    )


def _operands(generator: torch.Generator, tokens: int, rows: int, columns: int) -> Operands:
    """Codes, 8-bit activations and the scales of both.

    The activations' scales are powers of two, so that bfloat16 inputs are the same numbers.
    """
    options = {"generator": generator, "device": generator.device}
    return {
        "codes": torch.randint(-1, 2, (rows, columns), **options).to(torch.int8),
        "x": torch.randint(-127, 128, (tokens, columns), **options).to(torch.int8),
        "scale": torch.rand(rows, **options) + 0.5,
        "x_scale": 2.0 ** torch.randint(4, 8, (tokens, 1), **options),
    }


def _truth(o: Operands) -> torch.Tensor:
    return o["x"].double() @ o["codes"].double().T * o["scale"].double() / o["x_scale"].double()


def _error(result: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest error, relative to the largest result."""
    return ((result.double() - truth).abs().max() / truth.abs().max()).item()


def _pack(o: Operands) -> Operands:
    return {
        "x": o["x"],
        "packed": pack_ternary(o["codes"]),
        "scale": o["scale"],
        "x_scale": o["x_scale"],
    }


def _pack_for_floats(o: Operands) -> Operands:
    return {
        "x": (o["x"] / o["x_scale"]).bfloat16(),
        "packed": pack_ternary(o["codes"]),
        "scale": o["scale"],
    }


def _dense(o: Operands) -> Operands:
    weight = (o["codes"] * o["scale"][:, None]).bfloat16()
    return {"x": (o["x"] / o["x_scale"]).bfloat16(), "weight": weight}


def _for_int8(o: Operands) -> Operands:
    if not o["x"].is_cuda or len(o["x"]) < _FEWEST:
        raise MissingError(f"torch's int8 product needs CUDA and at least {_FEWEST} tokens")
    return o


def _int8(o: Operands) -> torch.Tensor:
    return torch._int_mm(o["x"], o["codes"].T) * (o["scale"] / o["x_scale"])


def _kernel(o: Operands) -> torch.Tensor:
    return launch_ternary(o["x"], o["packed"], o["scale"], o["x_scale"])
