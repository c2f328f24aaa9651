"""What a measured number depends on: model, weights, text, windows, draws and device."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ..measure.baseline import DenseBaseline
from ..models.embedded import WEIGHTS


def model_protocol(model: PreTrainedModel) -> dict[str, Any]:
    """The part of a protocol that says on what model and device the numbers were taken."""
    name = getattr(model, "prunebook_source", model.config.name_or_path)
    protocol = {"model": name}
    if name in WEIGHTS:
        protocol["weights"] = WEIGHTS[name]
    protocol["dtype"] = str(model.dtype).removeprefix("torch.")
    protocol["device"] = device_name(model.device)
    return protocol


def comparison_protocol(
    model: PreTrainedModel,
    calibrations: Sequence[torch.Tensor],
    held_out: torch.Tensor,
    dense: DenseBaseline,
    speed: bool,
    length: int,
) -> dict[str, Any]:
    """The protocol of a comparison of methods.

    Args:
        model: the dense model.
        calibrations: as for `compare`, like `held_out` and `dense`.
        speed: whether latency and generation are measured.
        length: tokens of the pass whose FLOPs and cache are taken.
    """
    samples = 0
    tokens = 0
    if len(calibrations):
        samples, tokens = calibrations[0].shape
    windows, window_length = held_out.shape
    opening = ""
    bos = model.config.get_text_config().bos_token_id
    if bos is not None and (held_out[:, 0] == bos).all():
        opening = ", each after BOS"
    memory = "resident, whole process"
    if model.device.type == "cuda":
        memory = "allocated on the GPU"
    protocol = {
        **model_protocol(model),
        "calibration": f"{samples} x {tokens} tokens",
        "seeds": len(calibrations),
        "evaluation": f"{windows} x {window_length} tokens, windows without overlap{opening}",
        "evaluation_precision": dense.precision,
        "peak_memory": memory,
    }
    counted = "FLOPs"
    if speed:
        protocol["generation"] = "batch 1, greedy, 16 tokens read, 16 written"
        counted = "FLOPs, latency"
    protocol["footprint"] = f"{counted} and key-value cache of {length} tokens, batch 1"
    return protocol


def device_name(device: torch.device) -> str:
    """What a protocol calls the device: the GPU's name, or the CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    if threads == 1:
        return "CPU, 1 thread"
    return f"CPU, {threads} threads"
