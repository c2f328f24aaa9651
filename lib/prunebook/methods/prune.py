"""`prune`: run a method on a model and report what really happened."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..errors import UserError
from ..measure.memory import peak_memory
from ..measure.zeros import count_zeros
from ..models.anatomy import find_blocks, weight_of
from ..models.config import TERNARY, WIDTHS
from ..models.loading import resolve_device
from ..models.sizes import block_parameters
from ..sparsity.allocation import from_rates
from ..sparsity.patterns import check_width
from .registry import make_method, name_of


@dataclass(frozen=True)
class Report:
    """What a call of `prune` did, measured afterwards.

    `sparsity` is the fraction of zeros in all linears of the decoder blocks, `layers` the same by
    linear; for a method that makes the model smaller, it is the fraction of the blocks' parameters
    that is gone, and `layers` is empty. `seconds` is wall time; `peak_memory` is in bytes,
    `memory_kind` says of what. `reloads_with` is what reads the model once it is saved:
    `transformers` alone, or `prunebook` (`pb.load_model`) where blocks differ in width or are
    ternary.
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

    def to_dict(self) -> dict:
        """JSON-able record of the report."""
        return dataclasses.asdict(self)


def prune(
    model,
    method,
    *,
    calibration: torch.Tensor | None = None,
    allocation: Mapping[str, float] | None = None,
    device=None,
    progress: bool = False,
    **options,
) -> Report:
    """Prune the linears inside the decoder blocks in place; embeddings and head stay dense.

    Args:
        model: a causal language model with recognisable blocks.
        method: a name (`wanda`) with its options, as `sparsity=0.5` or `pattern="2:4"`, or an
            instance such as `methods.Wanda(sparsity=0.5)`.
        calibration: int64 `[n, length]`; methods that need no data ignore it.
        allocation: name of each linear -> its own sparsity, in place of the method's one for all;
            their weighted mean is met exactly. For methods that take any (`takes_allocation`):
            Magnitude, Wanda, RIA, SparseGPT, DSnoT.
        device: where blocks compute, one at a time (`cuda` for a model kept in host memory because
            it does not fit); None for where the model is.
        progress: show a progress bar.

    Returns:
        The measured `Report`; it is also appended to `model.prunebook_reports`, which `save_model`
        writes.

    Raises:
        UserError: unknown method, option or linear, missing or bad calibration, activations that
            are not finite; and, found before any weight changes, a width that n:m does not divide
            or weights that are not finite.
    """
    method = make_method(method, options)
    if method.needs_calibration and calibration is None:
        raise UserError(
            f"method {name_of(method)!r} needs calibration tokens; make them with "
            "calibration_tokens(...)"
        )
    smaller = getattr(method, "makes_smaller", False)
    for block in find_blocks(model):
        for name, linear in block.linears.items():
            weight = weight_of(linear)
            if not smaller:
                check_width(weight.shape[1], method.target, name)
            if weight.numel() and not torch.stack(torch.aminmax(weight)).isfinite().all():
                raise UserError(f"weights of {name} hold NaN or infinity; nothing was pruned")
    named = {} if allocation is None else {"targets": _targets(model, method, allocation)}
    parameters = block_parameters(model)
    start = time.perf_counter()
    device = next(model.parameters()).device if device is None else resolve_device(device)
    with peak_memory(device) as memory:
        modes = {module: module.training for module in model.modules()}
        model.eval()  # dropout would make every pass another
        try:
            method.prune(
                model,
                calibration,
                progress=name_of(method) if progress else None,
                device=device,
                **named,
            )
        finally:
            for module, training in modes.items():
                module.training = training
    seconds = time.perf_counter() - start
    if smaller:
        sparsity = 1 - block_parameters(model) / parameters
        layers = {}
    else:
        counts = count_zeros(model)
        sparsity = sum(zeros for zeros, _ in counts.values()) / sum(
            size for _, size in counts.values()
        )
        layers = {name: zeros / size for name, (zeros, size) in counts.items()}
    used = (
        {"samples": len(calibration), "length": calibration.shape[1]}
        if method.needs_calibration
        else None
    )
    pattern = method.description if hasattr(method, "description") else str(method.target)
    options = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    own = hasattr(model.config, WIDTHS) or hasattr(model.config, TERNARY)
    reloads_with = "prunebook" if own else "transformers"
    report = Report(
        name_of(method),
        options,
        pattern,
        sparsity,
        layers,
        seconds,
        memory.bytes,
        memory.kind,
        used,
        reloads_with,
    )
    model.prunebook_reports = [*getattr(model, "prunebook_reports", []), report]
    return report


def _targets(model, method, allocation: Mapping[str, float]) -> dict:
    """The exact budgets of an allocation, in the comparison group of the method."""
    if not getattr(method, "takes_allocation", False):
        raise UserError(f"method {name_of(method)!r} allocates by itself; leave allocation out")
    scope = getattr(method.target, "scope", None)
    if scope not in ("row", "layer"):
        raise UserError(
            f"an allocation does not go with the pattern {method.target}; use a sparsity per row "
            "or layer"
        )
    return from_rates(model, allocation, scope)
