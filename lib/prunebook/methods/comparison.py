"""Many methods on one model, the same calibration draws and the same held-out text."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from ..blocks import count_zeros
from ..evaluate import DenseBaseline, Measurement, footprint, generation_speed, measure
from .engine import Report, prune

_PROMPT, _NEW_TOKENS = 16, 16  # read and written where the speed of generation is measured


@dataclass(frozen=True)
class Trial:
    """One method pruned with one calibration draw (`seed` None: it needs no data) and measured.

    `tokens_per_second` is of greedy generation, for the first draw only: draws differ in masks, not in speed.
    """

    label: str
    seed: int | None
    report: Report
    measurement: Measurement
    nonzero_parameters: int
    bytes_on_disk: int
    tokens_per_second: float | None
    parameters: int


@dataclass(frozen=True)
class Comparison:
    """Trials of several methods beside the dense model; see `compare`."""

    trials: list[Trial]
    dense: DenseBaseline
    seeds: int
    protocol: dict
    parameters: int
    dense_zeros: int
    prunable: int
    bytes_on_disk: int
    tokens_per_second: float

    def of(self, label: str) -> list[Trial]:
        """The trials of one method, one a seed."""
        return [trial for trial in self.trials if trial.label == label]

    def nll(self, label: str) -> np.ndarray:
        """Mean NLL of each held-out window in nats `[seeds, windows]`; `dense` names the dense model.

        What does not depend on calibration data has the same row for every seed.
        """
        rows = [self.dense.nll] if label == "dense" else [t.measurement.nll for t in self.of(label)]
        stacked = torch.stack(rows).numpy()
        return stacked if len(stacked) == self.seeds else np.repeat(stacked, self.seeds, axis=0)

    def perplexity(self, label: str) -> np.ndarray:
        """Perplexity of each calibration draw `[seeds]`."""
        return np.exp(self.nll(label).mean(axis=1))

    def mean(self, label: str, quantity: str) -> float:
        """Mean over the draws of a quantity of a result row, e.g. `perplexity`, `kl`, `sparsity`, `seconds`."""
        return float(np.mean([row[quantity] for row in self.rows() if row["label"] == label]))

    def rows(self) -> list[dict]:
        """One result row a trial, the dense model first: quality and cost of the same artefact."""
        dense = {
            "method": "dense", "label": "dense", "pattern": None, "seed": None,
            "sparsity": self.dense_zeros / self.prunable,
            "perplexity": self.dense.perplexity, "kl": 0.0, "agreement": 1.0,
            "tokens_per_second": self.tokens_per_second, "parameters": self.parameters,
            "nonzero_parameters": self.parameters - self.dense_zeros, "bytes_on_disk": self.bytes_on_disk,
        }  # fmt: skip
        return [dense, *map(self._row, self.trials)]

    def _row(self, trial: Trial) -> dict:
        quality = trial.measurement.to_dict()
        return {
            "method": trial.report.method, "label": trial.label, "pattern": trial.report.pattern,
            "seed": trial.seed, "sparsity": trial.report.sparsity,
            **{key: quality[key] for key in ("perplexity", "kl", "agreement", "evaluation_tokens_per_second")},
            "seconds": trial.report.seconds, "peak_memory": trial.report.peak_memory,
            "tokens_per_second": trial.tokens_per_second, "parameters": trial.parameters,
            "nonzero_parameters": trial.nonzero_parameters, "bytes_on_disk": trial.bytes_on_disk,
        }  # fmt: skip


def compare(
    model,
    methods: Mapping[str, object],
    *,
    calibrations: Sequence[torch.Tensor],
    held_out: torch.Tensor,
    dense: DenseBaseline,
    progress: bool = True,
) -> Comparison:
    """Prune a copy of the model with every method and calibration draw, and measure each on the same text.

    Args:
        model: the dense model; it is not changed.
        methods: label -> method object. A method that needs no data runs once.
        calibrations: one int64 `[n, length]` a seed, in the order of the seeds.
        held_out: int64 `[windows, length]`. dense: the baseline of `model` on `held_out`.

    Raises:
        UserError: as `prune` and `measure` do.
    """
    jobs = [
        (label, method, seed)
        for label, method in methods.items()
        for seed in (range(len(calibrations)) if method.needs_calibration else [None])
    ]
    trials = []
    for label, method, seed in tqdm(jobs, desc="prune and measure", disable=not progress):
        pruned = copy.deepcopy(model)
        report = prune(pruned, method, calibration=None if seed is None else calibrations[seed])
        parameters = pruned.num_parameters()
        nonzero = parameters - _zeros(pruned)[0]
        speed = None if seed else generation_speed(pruned, held_out[:1, :_PROMPT], _NEW_TOKENS)
        measured = measure(pruned, held_out, dense, dense.precision)
        trials.append(Trial(label, seed, report, measured, nonzero, footprint(pruned), speed, parameters))
    protocol = _protocol(model, calibrations, held_out, dense)
    return Comparison(
        trials, dense, max(1, len(calibrations)), protocol, model.num_parameters(), *_zeros(model),
        footprint(model), generation_speed(model, held_out[:1, :_PROMPT], _NEW_TOKENS),
    )  # fmt: skip


def sweep(
    model,
    methods: Mapping[str, object],
    *,
    calibration: torch.Tensor,
    held_out: torch.Tensor,
    precision: str = "auto",
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Prune a copy of the model with every method and take its NLL alone: for curves of many points, at half the
    time of `compare`.

    Args:
        model: the dense model; it is not changed. methods: label -> method object.
        calibration: int64 `[n, length]`. held_out: int64 `[windows, length]`. precision: as for `measure`.

    Returns:
        Label -> mean NLL of each held-out window in nats, `[1, windows]`.

    Raises:
        UserError: as `prune` and `measure` do.
    """
    found = {}
    for label, method in tqdm(methods.items(), desc="sweep", disable=not progress):
        pruned = copy.deepcopy(model)
        prune(pruned, method, calibration=calibration)
        found[label] = measure(pruned, held_out, precision=precision).nll[None].numpy()
    return found


def _zeros(model) -> tuple[int, int]:
    """How many weights of the linears inside the blocks are zero, and how many there are."""
    zeros, sizes = zip(*count_zeros(model).values(), strict=True)
    return sum(zeros), sum(sizes)


def _protocol(model, calibrations, held_out, dense) -> dict:
    calibration = calibrations[0].shape if len(calibrations) else (0, 0)
    return {
        "model": getattr(model, "prunebook_source", model.config.name_or_path),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": _device_name(model.device),
        "calibration": f"{calibration[0]} x {calibration[1]} tokens",
        "seeds": len(calibrations),
        "evaluation": f"{held_out.shape[0]} x {held_out.shape[1]} tokens, windows without overlap",
        "evaluation_precision": dense.precision,
        "generation": f"batch 1, greedy, {_PROMPT} tokens read, {_NEW_TOKENS} written",
        "peak_memory": "allocated on the GPU" if model.device.type == "cuda" else "resident, whole process",
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
