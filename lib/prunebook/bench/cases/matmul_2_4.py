"""The product with a packed 2:4 weight, from one token to many, beside dense bfloat16, torch's 2:4 and dense FP8."""

import torch
import torch.nn.functional as F

from ...kernels.matmul_2_4 import KERNEL_TOKENS, launch_linear_2_4, linear_2_4
from ...kernels.n_of_m import select_n_of_m
from ...kernels.packed import Packed
from .. import work
from ..case import Case, MissingError, Operands, Provider
from .weights import DOWN, SQUARE, UP, weight

KERNEL = "product-2-4"
_GATE_UP = (22016, 4096)
_TOKENS = (1, 8, 16, 32, 64, 256, 4096)
# Errors are multiples of the largest error of the dense bfloat16 product; FP8 keeps three bits of a weight.
_ALLOWED, _ALLOWED_FP8 = 2.0, 200.0
_FP8 = torch.float8_e4m3fn
_PADDED = 16  # tokens, which FP8 products ask for


def cases() -> list[Case]:
    found = []
    for shape in (UP, SQUARE, DOWN):
        for tokens in _TOKENS:
            found.append(case(tokens, *shape, rank=(tokens not in (1, 16, 64)) + (shape != UP)))
    return [*found, case(1, *_GATE_UP, rank=1)]


def case(tokens: int, rows: int, columns: int, rank: int) -> Case:
    providers = [
        Provider("prunebook", lambda o: linear_2_4(o["x"], _packed_of(o)), prepare=_pack),
        Provider("dense bfloat16", lambda o: F.linear(o["x"], o["weight"])),
        Provider("torch 2:4, cuSPARSELt", _torch_2_4, prepare=_for_cusparselt),
        Provider("torch 2:4, CUTLASS", _torch_2_4, prepare=_for_cutlass),
        Provider("dense FP8", _fp8, prepare=_for_fp8, allowed=_ALLOWED_FP8,
                 note="rounds weights and inputs to FP8; its inputs are rounded before the clock starts"),
    ]  # fmt: skip
    if tokens > KERNEL_TOKENS:
        note = "the kernel where dispatch does not take it"
        providers.append(Provider("prunebook's kernel", _kernel, prepare=_pack, note=note))
    return Case(
        KERNEL, {"tokens": tokens, "rows": rows, "columns": columns}, work.product_2_4(tokens, rows, columns),
        lambda generator: _operands(generator, tokens, rows, columns), _reference, _error, providers, allowed=_ALLOWED,
        rank=rank, seconds=10,
    )  # fmt: skip


def _operands(generator: torch.Generator, tokens: int, rows: int, columns: int) -> Operands:
    w = weight(generator, rows, columns)
    select_n_of_m(w, 2, 4)
    x = torch.randn(tokens, columns, generator=generator, device=w.device).bfloat16()
    return {"x": x, "weight": w}


def _reference(o: Operands) -> dict[str, torch.Tensor]:
    """The product in float64, and the largest error of the dense bfloat16 one."""
    y = o["x"].double() @ o["weight"].double().T
    return {"y": y, "unit": (F.linear(o["x"], o["weight"]) - y).abs().max()}


def _error(result: torch.Tensor, truth: dict[str, torch.Tensor]) -> float:
    return ((result.double() - truth["y"]).abs().max() / truth["unit"]).item()


def _pack(o: Operands) -> Operands:
    packed = select_n_of_m(o["weight"], 2, 4, write=False, want="packed")
    return {"x": o["x"], "values": packed.values, "codes": packed.codes}


def _packed_of(o: Operands) -> Packed:
    return Packed(o["values"], o["codes"], 2, 4)


def _kernel(o: Operands) -> torch.Tensor:
    return launch_linear_2_4(o["x"], _packed_of(o))


def _for_cusparselt(o: Operands) -> Operands:
    if not torch.backends.cusparselt.is_available():
        raise MissingError("this build of torch has no cuSPARSELt")
    return _for_torch(torch.sparse.SparseSemiStructuredTensorCUSPARSELT, o)


def _for_cutlass(o: Operands) -> Operands:
    if not o["weight"].is_cuda:
        raise MissingError("a kernel for CUDA alone")
    return _for_torch(torch.sparse.SparseSemiStructuredTensorCUTLASS, o)


def _for_torch(kind: type, o: Operands) -> Operands:
    sparse = kind.from_dense(o["weight"])
    # In a tuple it does not count as the dense tensor that it claims to be; what it stores does.
    return {"x": o["x"], "stored": sparse.packed, "sparse": (sparse,)}


def _torch_2_4(o: Operands) -> torch.Tensor:
    return F.linear(o["x"], o["sparse"][0])


def _for_fp8(o: Operands) -> Operands:
    """Weight and inputs scaled to the range of FP8, one scale each."""
    if not o["weight"].is_cuda or torch.cuda.get_device_capability() < (8, 9):
        raise MissingError("no FP8 products before compute capability 8.9")
    x = F.pad(o["x"], (0, 0, 0, -len(o["x"]) % _PADDED))
    scales = [(t.abs().max() / torch.finfo(_FP8).max).float() for t in (x, o["weight"])]
    x, w = ((t / scale).to(_FP8) for t, scale in zip((x, o["weight"]), scales, strict=True))
    return {"x": x, "weight": w, "x_scale": scales[0], "scale": scales[1], "tokens": len(o["x"])}


def _fp8(o: Operands) -> torch.Tensor:
    y = torch._scaled_mm(o["x"], o["weight"].T, o["x_scale"], o["scale"], out_dtype=torch.bfloat16)
    return y[: o["tokens"]]
