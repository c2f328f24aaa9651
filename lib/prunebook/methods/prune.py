"""`prune`: run a method on a model and report what really happened. The engine names no method."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import UserError
from ..measure.memory import peak_memory
from ..measure.zeros import count_zeros
from ..models.anatomy import find_blocks, weight_of
from ..models.config import needs_prunebook
from ..models.loading import resolve_device
from ..models.sizes import block_parameters
from ..sparsity.allocation import from_rates
from ..sparsity.patterns import ExactCount, Unstructured, check_width
from .base import Method
from .registry import make_method, name_of


@dataclass(frozen=True)
class Report:
    """What a call of `prune` did, measured afterwards.

    method: registered name of the method.
    options: options of the method, with their defaults.
    pattern: the pattern in words.
    sparsity: fraction of zeros in all linears of the decoder blocks; for a method that makes the
        model smaller, fraction of the blocks' parameters that is gone.
    layers: name of each linear -> fraction of its zeros; empty where the model became smaller.
    seconds: wall time.
    peak_memory: bytes.
    memory_kind: what the bytes are measured of.
    calibration: `samples` and `length` of the calibration text, None where none was read.
    reloads_with: what reads the model once it is saved: `transformers` alone, or `prunebook`
        (`pb.load_model`) where blocks differ in width or are ternary.
    data: `samples` and `length` of the text that weights were trained on, None where none were.
    details: what the method learned on the way; None for nothing.
    """

    method: str
    options: dict
    pattern: str
    sparsity: float
    layers: dict[str, float]
    seconds: float
    peak_memory: int
    memory_kind: str
    calibration: dict | None
    reloads_with: str
    data: dict | None = None
    details: Any = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict:
        """JSON-able record of the report, without the details."""
        # The details are objects of any kind, e.g. tensors.
        record = dataclasses.asdict(dataclasses.replace(self, details=None))
        del record["details"]
        return record


def prune(
    model: PreTrainedModel,
    method: Method | str,
    *,
    calibration: torch.Tensor | None = None,
    data: torch.Tensor | None = None,
    allocation: Mapping[str, float] | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
    **options: Any,
) -> Report:
    """Prune the linears inside the decoder blocks in place; embeddings and head stay dense.

    Args:
        model: a causal language model with recognisable blocks.
        method: a name, e.g. `wanda`, with its options, e.g. `sparsity=0.5` or `pattern="2:4"`; or
            an instance, e.g. `methods.Wanda(sparsity=0.5)`.
        calibration: int64 `[n, length]`, text that is only read; ignored by a method without need.
        data: int64 `[n, length]`, text that weights are trained on, for a method that trains.
        allocation: name of each linear -> its own sparsity, in place of the method's one for all;
            their weighted mean is met exactly. Only for methods that declare `takes_allocation`.
        device: where blocks compute, one at a time, e.g. `cuda` for a model that only host memory
            can hold; None for where the model is.
        progress: show a progress bar.
        options: options of a method that is given by name.

    Returns:
        The measured `Report`; `model.prunebook_reports` gets it too, and `save_model` writes it.

    Raises:
        UserError: unknown method, option or linear, missing or bad text, or activations that are
            not finite. Before any weight changes: a width that n:m does not divide, or weights that
            are not finite.
    """
    # Everything that can be refused is refused before any weight changes.
    method = make_method(method, options)
    text = _text_of(method, calibration, data)
    _check_weights(model, method)
    arguments = {"progress": None, "device": _device_of(model, device)}
    if progress:
        arguments["progress"] = name_of(method)
    if allocation is not None:
        arguments["targets"] = _targets(model, method, allocation)
    report = _prune_and_measure(model, method, text, arguments)
    # A model may be pruned more than once: the reports stand in the order of the calls.
    model.prunebook_reports = [*getattr(model, "prunebook_reports", []), report]
    return report


def _prune_and_measure(
    model: PreTrainedModel,
    method: Method,
    text: torch.Tensor | None,
    arguments: Mapping[str, Any],
) -> Report:
    """Run a method and report time, memory and what is left of the model.

    Args:
        model: the model, pruned in place.
        method: what prunes it.
        text: the calibration text or the data; None where the method needs none.
        arguments: named arguments of `method.prune`.
    """
    parameters = block_parameters(model)
    # Time and memory are those of the method alone, without the measurements afterwards.
    start = time.perf_counter()
    with peak_memory(arguments["device"]) as memory, evaluation_mode(model):
        details = method.prune(model, text, **arguments)
    seconds = time.perf_counter() - start
    # The sparsity is that of the model as it now is, not what was asked for.
    sparsity, layers = _measured_sparsity(model, method, parameters)
    calibration = None
    data = None
    if method.needs_calibration:
        calibration = _size_of(text)
    if method.needs_data:
        data = _size_of(text)
    # Blocks of different width and ternary layers are unknown to transformers.
    reads_it = "transformers"
    if needs_prunebook(model.config):
        reads_it = "prunebook"
    return Report(
        method=name_of(method),
        options={
            option.name: getattr(method, option.name) for option in dataclasses.fields(method)
        },
        pattern=method.describe(),
        sparsity=sparsity,
        layers=layers,
        seconds=seconds,
        peak_memory=memory.bytes,
        memory_kind=memory.kind,
        calibration=calibration,
        reloads_with=reads_it,
        data=data,
        details=details,
    )


def _device_of(model: PreTrainedModel, device: torch.device | str | None) -> torch.device:
    """Where blocks compute: the device that is asked for, or where the model is."""
    if device is None:
        return next(model.parameters()).device
    return resolve_device(device)


def _size_of(text: torch.Tensor) -> dict[str, int]:
    """What a report says of a text `[n, length]`."""
    return {"samples": len(text), "length": text.shape[1]}


def _text_of(
    method: Method, calibration: torch.Tensor | None, data: torch.Tensor | None
) -> torch.Tensor | None:
    """The text that the method reads or is trained on, None where it needs none.

    Raises:
        UserError: the text is missing, or given as the other kind.
    """
    name = name_of(method)
    # Text that weights are trained on is `data`; text that is only read is `calibration`.
    if method.needs_data:
        if data is None and calibration is not None:
            raise UserError(
                f"method {name!r} trains weights on its text; give it as data=..., not calibration"
            )
        if data is None:
            raise UserError(f"method {name!r} needs data; make it with training_tokens(...)")
        return data
    if data is not None:
        raise UserError(f"method {name!r} trains nothing; leave data out")
    if not method.needs_calibration:
        return None
    if calibration is None:
        raise UserError(
            f"method {name!r} needs calibration tokens; make them with calibration_tokens(...)"
        )
    return calibration


def _check_weights(model: PreTrainedModel, method: Method) -> None:
    """Raise a `UserError` for weights that the method cannot prune; no weight has changed then."""
    for block in find_blocks(model):
        for name, linear in block.linears.items():
            weight = weight_of(linear)
            # n:m needs whole groups in every row.
            if not method.makes_smaller:
                check_width(weight.shape[1], method.target, name)
            # The extremes show any NaN or infinity.
            if weight.numel() and not torch.stack(torch.aminmax(weight)).isfinite().all():
                raise UserError(f"weights of {name} hold NaN or infinity; nothing was pruned")


def _targets(
    model: PreTrainedModel, method: Method, allocation: Mapping[str, float]
) -> dict[str, ExactCount]:
    """The exact counts of an allocation, in the comparison group of the method.

    Args:
        model: the model that is to be pruned.
        method: what prunes it.
        allocation: name of each linear -> its own sparsity.

    Raises:
        UserError: the method takes no allocation, or not with its pattern; or the allocation is no
            mapping, or has a bad rate.
    """
    if not method.takes_allocation:
        raise UserError(f"method {name_of(method)!r} allocates by itself; leave allocation out")
    # n:m leaves no freedom within a linear, and one ranking of the whole model allocates by itself.
    target = method.target
    if not isinstance(target, Unstructured | ExactCount) or target.scope == "model":
        raise UserError(
            f"an allocation does not go with the pattern {target}; use a sparsity per row or layer"
        )
    if not isinstance(allocation, Mapping):
        raise UserError(
            f"allocation is a {type(allocation).__name__}; use a mapping from the name of each "
            "linear to its sparsity"
        )
    return from_rates(model, allocation, target.scope)


@contextmanager
def evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Put all modules in evaluation mode while the context is open, then back as they were.

    With dropout, every pass would give other numbers.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _measured_sparsity(
    model: PreTrainedModel, method: Method, parameters: int
) -> tuple[float, dict[str, float]]:
    """`sparsity` and `layers` of the report.

    Args:
        model: the pruned model.
        method: what pruned it.
        parameters: parameters of the blocks before it was pruned.
    """
    # A method that cuts structures out leaves no zeros to count.
    if method.makes_smaller:
        return 1 - block_parameters(model) / parameters, {}
    # Zeros are counted in the weights, whoever made them.
    counts = count_zeros(model)
    zeros = sum(zeros for zeros, _ in counts.values())
    size = sum(size for _, size in counts.values())
    return zeros / size, {name: zeros / size for name, (zeros, size) in counts.items()}
