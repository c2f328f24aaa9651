"""BitNet b1.58, microsoft/BitNet: the quantisers of `gpu/`, on random weights and activations.

`convert_ts_checkpoint` turns a checkpoint of latent weights into codes and scales, and `BitLinear`
of `gpu/model.py` quantises activations. The former computes in the dtype of the weights, so that
bfloat16 moves some codes; `weight_quant` of `utils/convert-hf-to-gguf-bitnet.py` computes in
float32, as ours does. Replaced: xformers, einops, gguf and the module `convert` by empty modules,
the CUDA library by nothing, and `torch.compile` by the function itself.

The code for training is only printed: figure 3 of the FAQ of microsoft/unilm (bitnet, commit
768a3c8). Where it has been typed into `faq_figure3.py` in the repository's folder, outputs and
gradients are compared too; its `RMSNorm`, which the figure does not define, is that of torch.
"""

import contextlib
import ctypes
import io
import sys
import tempfile
import unittest.mock
from collections.abc import Iterator
from pathlib import Path

import torch

from prunebook.models.ternary_linears import BitLinear, absmax_int8, absmean_ternary

from .common import equal_share, official_module, relative_difference, stand_in

REPOSITORY = "https://github.com/microsoft/BitNet"
COMMIT = "16da220"
_WIDTH = 128
_HEADS = 4
_KV_HEADS = 2
_NEURONS = 192
_EPS = 1e-5


def parity(folder: str) -> dict:
    """Codes, scales and outputs of the official code beside ours.

    Args:
        folder: a checkout of the repository.
    """
    gpu = f"{folder}/gpu"
    for name in ("xformers", "xformers.ops.fmha", "einops"):
        stand_in(name, rearrange=None)
    stand_in("xformers.ops", RMSNorm=None, fmha=None, rope_padded=None)
    stand_in("xformers.ops.fmha.attn_bias", BlockDiagonalCausalWithOffsetPaddedKeysMask=None)
    with (
        unittest.mock.patch.object(ctypes, "CDLL"),
        unittest.mock.patch.object(torch, "compile", lambda function: function),
    ):
        model = official_module(gpu, "model")
        converter = official_module(gpu, "convert_checkpoint")
    stand_in("convert", LlamaHfVocab=None, permute=None)
    # The module names an architecture that only the repository's own `gguf` has.
    with unittest.mock.patch.dict(sys.modules, {"gguf": unittest.mock.MagicMock()}):
        gguf_converter = official_module(f"{folder}/utils", "convert-hf-to-gguf-bitnet")
    compared = {
        "weights_float32": _weights(converter, model, torch.float32),
        "weights_bfloat16": _weights(converter, model, torch.bfloat16),
        "weights_bfloat16_in_float32": _weights_for_gguf(gguf_converter),
        "activations": _activations(model),
    }
    if (Path(folder) / "faq_figure3.py").exists():
        compared["training"] = _training(official_module(folder, "faq_figure3"))
    return compared


def _weights(converter, model, dtype: torch.dtype) -> dict:
    """Codes, scales and packed bytes of all matrices of one block, from `convert_ts_checkpoint`."""
    sizes = {
        "dim": _WIDTH,
        "n_layers": 1,
        "n_heads": _HEADS,
        "n_kv_heads": _KV_HEADS,
        "ffn_dim": _NEURONS,
    }
    args = model.ModelArgs(**sizes)
    generator = torch.Generator().manual_seed(0)
    key_width = _WIDTH // _HEADS * _KV_HEADS
    shapes = {
        "wqkv": [(_WIDTH, _WIDTH), (key_width, _WIDTH), (key_width, _WIDTH)],
        "wo": [(_WIDTH, _WIDTH)],
        "w13": [(_NEURONS, _WIDTH), (_NEURONS, _WIDTH)],
        "w2": [(_WIDTH, _NEURONS)],
    }
    parts = {
        f"layers.0.{name}.weight": [
            (torch.randn(shape, generator=generator) * 0.02).to(dtype) for shape in several
        ]
        for name, several in shapes.items()
    }
    with (
        tempfile.TemporaryDirectory() as scratch,
        unittest.mock.patch.object(model, "ModelArgs", return_value=args),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        path = f"{scratch}/checkpoint.pt"
        torch.save({name: torch.cat(several) for name, several in parts.items()}, path)
        converter.convert_ts_checkpoint(input_path=path)
        dequantised = torch.load(f"{scratch}/model_state_fp16.pt")
        packed = torch.load(f"{scratch}/model_state_int2.pt")
    rows = list(_matrices(converter, parts, dequantised, packed))
    total = sum(row["weights"] for row in rows)
    return {
        "weights": total,
        "codes_equal": sum(row["codes_equal"] * row["weights"] for row in rows) / total,
        "dequantised_difference": max(row["dequantised_difference"] for row in rows),
        "scale_difference_to_their_bfloat16": max(row["scale_difference"] for row in rows),
        "packed_bytes_equal": sum(row["packed_equal"] * row["weights"] for row in rows) / total,
    }


def _matrices(converter, parts: dict, dequantised: dict, packed: dict) -> Iterator[dict]:
    """One row for every stored matrix; its parts, e.g. q, k and v, have a scale each."""
    for name, several in parts.items():
        quantised = [absmean_ternary(part) for part in several]
        codes = torch.cat([codes for codes, _ in quantised])
        ours = torch.cat([gamma * codes for codes, gamma in quantised])
        scales = torch.stack([gamma for _, gamma in quantised])
        theirs = dequantised[name].float()
        their_scales = packed[name.replace("weight", "weight_scale")].float()
        their_format = converter.convert_weight_int8_to_int2(codes.to(torch.int8))
        yield {
            "weights": codes.numel(),
            "codes_equal": equal_share(codes, theirs.sign()),
            "dequantised_difference": relative_difference(ours, theirs),
            "scale_difference": relative_difference(scales, their_scales[: len(scales)]),
            "packed_equal": equal_share(their_format, packed[name]),
        }


def _weights_for_gguf(converter) -> dict:
    """Codes of a bfloat16 weight from `weight_quant`, which returns `gamma * codes` in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(_NEURONS, _WIDTH, generator=generator) * 0.02).to(torch.bfloat16)
    theirs = converter.BitnetModel.weight_quant(None, weight)
    codes, gamma = absmean_ternary(weight)
    return {
        "weights": weight.numel(),
        "codes_equal": equal_share(codes, theirs.float().sign()),
        "dequantised_difference": relative_difference((gamma * codes).to(theirs.dtype), theirs),
    }


def _activations(model) -> dict:
    """The 8-bit activations of `BitLinear`, and its outputs with a dequantised weight."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 32, _WIDTH, generator=generator) * 3
    x[0, 0] = 0
    weight = torch.randn(_NEURONS, _WIDTH, generator=generator) * 0.02
    their_layer = model.BitLinear(_WIDTH, _NEURONS, bias=False)
    our_layer = BitLinear(_WIDTH, _NEURONS)
    our_layer.weight.data = weight
    codes, gamma = absmean_ternary(weight)
    their_layer.weight.data = gamma * codes
    x_codes, s = absmax_int8(x)
    theirs = their_layer.quant_input(x)
    return {
        "tokens": x.shape[0] * x.shape[1],
        "codes_equal": equal_share(x_codes, (theirs * s).round()),
        "dequantised_difference": relative_difference(x_codes / s, theirs),
        "output_difference": relative_difference(our_layer(x), their_layer(x)),
    }


def _training(figure) -> dict:
    """Outputs and gradients of the layer for training, which norms its own input."""
    figure.RMSNorm = lambda x: torch.nn.functional.rms_norm(x, x.shape[-1:], eps=_EPS)
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(_NEURONS, _WIDTH, generator=generator) * 0.02
    inputs = torch.randn(64, _WIDTH, generator=generator) * 3
    upstream = torch.randn(64, _NEURONS, generator=generator)
    results = []
    for layer in (
        BitLinear(_WIDTH, _NEURONS, norm_eps=_EPS),
        figure.BitLinear(_WIDTH, _NEURONS, bias=False),
    ):
        layer.weight.data = weight.clone()
        x = inputs.clone().requires_grad_()
        with torch.enable_grad():
            y = layer(x)
            gradients = torch.autograd.grad((y * upstream).sum(), (layer.weight, x))
        results.append((y.detach(), *gradients))
    ours, theirs = results
    names = ("output_difference", "weight_gradient_difference", "input_gradient_difference")
    return {
        name: relative_difference(one, other)
        for name, one, other in zip(names, ours, theirs, strict=True)
    }
