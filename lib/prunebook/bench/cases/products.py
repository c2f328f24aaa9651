"""What the products of bfloat16 inputs share: their errors, and dense products beside them."""

import torch
import torch.nn.functional as F

from ..case import MissingError, Operands, Provider

# Allowed errors, as multiples of the largest error of the dense bfloat16 product. FP8 keeps three
# bits of a weight.
ALLOWED = 2.0
_ALLOWED_FP8 = 200.0
_FP8 = torch.float8_e4m3fn
_PADDED = 16  # FP8 products take a multiple of so many tokens


def inputs(generator: torch.Generator, tokens: int, columns: int) -> torch.Tensor:
    """Normal bfloat16 `[tokens, columns]`."""
    return torch.randn(tokens, columns, generator=generator, device=generator.device).bfloat16()


def truth(o: Operands) -> dict[str, torch.Tensor]:
    """The product in float64, and the largest error of the dense bfloat16 one."""
    y = o["x"].double() @ o["weight"].double().T
    return {"y": y, "unit": (F.linear(o["x"], o["weight"]) - y).abs().max()}


def error(result: torch.Tensor, truth: dict[str, torch.Tensor]) -> float:
    """The largest error, in units of that of the dense bfloat16 product."""
    return ((result.double() - truth["y"]).abs().max() / truth["unit"]).item()


def dense() -> list[Provider]:
    """Dense products with the same weight, zeros included, in bfloat16 and in FP8."""
    return [
        Provider("dense bfloat16", lambda o: F.linear(o["x"], o["weight"])),
        Provider(
            "dense FP8",
            _fp8,
            prepare=_for_fp8,
            allowed=_ALLOWED_FP8,
            note="rounds weights and inputs to FP8; its inputs are rounded before the clock starts",
        ),
    ]


def needs_cuda(o: Operands) -> Operands:
    """The operands; raises `MissingError` on another device."""
    if not o["weight"].is_cuda:
        raise MissingError("a kernel for CUDA alone")
    return o


def _for_fp8(o: Operands) -> Operands:
    """Weight and inputs scaled to the range of FP8, one scale each."""
    if not o["weight"].is_cuda or torch.cuda.get_device_capability() < (8, 9):
        raise MissingError("no FP8 products before compute capability 8.9")
    x = F.pad(o["x"], (0, 0, 0, -len(o["x"]) % _PADDED))
    x_scale = _scale_for_fp8(x)
    scale = _scale_for_fp8(o["weight"])
    return {
        "x": (x / x_scale).to(_FP8),
        "weight": (o["weight"] / scale).to(_FP8),
        "x_scale": x_scale,
        "scale": scale,
        "tokens": len(o["x"]),
    }


def _scale_for_fp8(tensor: torch.Tensor) -> torch.Tensor:
    """The float32 number by which a tensor is divided to fill the range of FP8."""
    return (tensor.abs().max() / torch.finfo(_FP8).max).float()


def _fp8(o: Operands) -> torch.Tensor:
    """The FP8 product summed as servers sum it: fast, with fewer bits than float32."""
    y = torch._scaled_mm(
        o["x"],
        o["weight"].T,
        o["x_scale"],
        o["scale"],
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
    return y[: o["tokens"]]
