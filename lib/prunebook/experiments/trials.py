"""One trial: a method prunes a copy of the model, and the copy is measured; its result row."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from ..measure.baseline import DenseBaseline
from ..measure.footprint import Footprint, footprint
from ..measure.quality import Measurement, measure_quality
from ..measure.zeros import count_zeros
from ..methods.base import Method
from ..methods.prune import Report, prune
from ..notebook.contention import watch


@dataclass(frozen=True)
class Trial:
    """One method, pruned with one calibration draw and measured.

    label: name of the method in the comparison.
    seed: number of the draw; None for a method that needs no text.
    report: what pruning did. It keeps the seconds that it took, disturbed or not.
    measurement: quality on the held-out text, likewise.
    nonzero_parameters: parameters that are not zero.
    footprint: costs; times are measured for the first draw only, as draws differ in masks and not
        in speed.
    untimed: columns of the result row that are None, as other work disturbed their sections.
    """

    label: str
    seed: int | None
    report: Report
    measurement: Measurement
    nonzero_parameters: int
    footprint: Footprint
    untimed: tuple[str, ...] = ()

    @property
    def nll(self) -> torch.Tensor:
        """Mean NLL of each held-out window in nats, `[windows]`."""
        return self.measurement.nll

    def row(self) -> dict[str, Any]:
        """The result row: quality and cost of the same artefact."""
        row = {
            "method": self.report.method,
            "label": self.label,
            "pattern": self.report.pattern,
            "seed": self.seed,
            "sparsity": self.report.sparsity,
            "perplexity": self.measurement.perplexity,
            "kl": self.measurement.kl,
            "agreement": self.measurement.agreement,
            "evaluation_tokens_per_second": self.measurement.tokens_per_second,
            "seconds": self.report.seconds,
            "peak_memory": self.report.peak_memory,
            "nonzero_parameters": self.nonzero_parameters,
            **_costs(self.footprint),
            "machine_busy": bool(self.untimed) or self.footprint.timing is not None,
        }
        return row | dict.fromkeys(self.untimed)


@dataclass(frozen=True)
class DenseTrial:
    """The dense model, which methods are compared with.

    baseline: its passes over the held-out text.
    zeros: weights of the linears inside the blocks that are zero.
    prunable: all weights of these linears.
    footprint: costs.
    """

    baseline: DenseBaseline
    zeros: int
    prunable: int
    footprint: Footprint
    label: str = "dense"

    @property
    def nll(self) -> torch.Tensor:
        """Mean NLL of each held-out window in nats, `[windows]`."""
        return self.baseline.nll

    def row(self) -> dict[str, Any]:
        """The result row; it has no column for what pruning takes."""
        return {
            "method": "dense",
            "label": self.label,
            "pattern": None,
            "seed": None,
            "sparsity": self.zeros / self.prunable,
            "perplexity": self.baseline.perplexity,
            "kl": 0.0,
            "agreement": 1.0,
            "nonzero_parameters": self.footprint.parameters - self.zeros,
            **_costs(self.footprint),
            "machine_busy": self.footprint.timing is not None,
        }


def measure_dense(
    model: PreTrainedModel, baseline: DenseBaseline, length: int, *, speed: bool
) -> DenseTrial:
    """Measure the dense model; arguments as for `run_trial`."""
    zeros, prunable = _count(model)
    return DenseTrial(baseline, zeros, prunable, footprint(model, length, speed=speed))


def run_trial(
    model: PreTrainedModel,
    method: Method,
    text: torch.Tensor | None,
    held_out: torch.Tensor,
    baseline: DenseBaseline,
    length: int,
    *,
    speed: bool,
) -> dict[str, Any]:
    """Prune a copy of the model and measure it.

    Args:
        model: the dense model; it is not changed.
        method: the method.
        text: int64 `[n, length]`, what the method reads or trains on; None where it needs none.
        held_out: int64 `[windows, length]`.
        baseline: that of the dense model on `held_out`.
        length: tokens of the pass whose FLOPs, cache and latency are taken.
        speed: measure latency and generation, too.

    Returns:
        The fields of a `Trial` but for its label and seed.

    Raises:
        UserError: as `prune` and `measure_quality` do.
    """
    pruned = copy.deepcopy(model)
    with watch() as pruning:
        report = prune_with(pruned, method, text)
    costs = footprint(pruned, length, speed=speed)
    zeros, _ = _count(pruned)
    with watch() as evaluating:
        measurement = measure_quality(pruned, held_out, baseline, baseline.precision)
    sections = {"seconds": pruning, "evaluation_tokens_per_second": evaluating}
    return {
        "report": report,
        "measurement": measurement,
        "nonzero_parameters": costs.parameters - zeros,
        "footprint": costs,
        "untimed": tuple(column for column, section in sections.items() if section.busy),
    }


def prune_with(model: PreTrainedModel, method: Method, text: torch.Tensor | None) -> Report:
    """Prune the model in place; the text goes in as the argument that the method takes it by."""
    argument = method.text_argument()
    if argument is None:
        return prune(model, method)
    return prune(model, method, **{argument: text})


def _count(model: PreTrainedModel) -> tuple[int, int]:
    """How many weights of the linears inside the blocks are zero, and how many there are."""
    zeros, sizes = zip(*count_zeros(model).values(), strict=True)
    return sum(zeros), sum(sizes)


def _costs(costs: Footprint) -> dict[str, Any]:
    """The columns of a footprint in a result row."""
    return {
        "parameters": costs.parameters,
        "bytes_on_disk": costs.bytes,
        "flops": costs.flops,
        "kv_cache_bytes": costs.kv_cache_bytes,
        "latency": costs.latency,
        "tokens_per_second": costs.tokens_per_second,
    }
