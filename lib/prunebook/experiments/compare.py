"""Many methods on one model, the same calibration draws and the same held-out text."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from ..errors import UserError
from ..measure.footprint import Footprint, footprint
from ..measure.memory import malloc_pool
from ..measure.baseline import DenseBaseline, resolve_precision
from ..measure.quality import Measurement, measure_quality
from ..measure.zeros import count_zeros
from ..methods.prune import Report, prune
from ..notebook.quick import is_quick_run
from ..notebook.contention import watch
from .trial_cache import (
    find_nll,
    find_trial,
    keep_nll,
    keep_trial,
    model_identity,
    pages_share,
    trial_identity,
)

_LENGTH = 128  # tokens of the pass whose FLOPs, cache and latency are taken


@dataclass(frozen=True)
class Trial:
    """One method pruned with one calibration draw (`seed` None: it needs no data) and measured.

    The times of the footprint are measured for the first draw only: draws differ in masks, not in
    speed. `untimed` are the columns of its result row that are None, as other work disturbed their
    sections. The report and the measurement keep the seconds that they took.
    """

    label: str
    seed: int | None
    report: Report
    measurement: Measurement
    nonzero_parameters: int
    footprint: Footprint
    untimed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Trials of several methods beside the dense model; see `compare`."""

    trials: list[Trial]
    dense: DenseBaseline
    seeds: int
    protocol: dict
    dense_zeros: int
    prunable: int
    footprint: Footprint

    def of(self, label: str) -> list[Trial]:
        """The trials of one method, one a seed."""
        return [trial for trial in self.trials if trial.label == label]

    def nll(self, label: str) -> np.ndarray:
        """Mean NLL of each held-out window in nats `[seeds, windows]`; `dense` names the dense
        model.

        What does not depend on calibration data has the same row for every seed.
        """
        rows = [self.dense.nll] if label == "dense" else [t.measurement.nll for t in self.of(label)]
        stacked = torch.stack(rows).numpy()
        return stacked if len(stacked) == self.seeds else np.repeat(stacked, self.seeds, axis=0)

    def perplexity(self, label: str) -> np.ndarray:
        """Perplexity of each calibration draw `[seeds]`."""
        return np.exp(self.nll(label).mean(axis=1))

    def mean(self, label: str, quantity: str) -> float:
        """Mean over the draws of a quantity of a result row, e.g. `perplexity`, `kl`, `sparsity`,
        `seconds`.

        Raises:
            UserError: it was measured for no draw, as a time on a busy machine.
        """
        values = [row[quantity] for row in self.rows() if row["label"] == label]
        measured = [value for value in values if value is not None]
        if not measured:
            raise UserError(f"{quantity} of {label!r} was not measured; see its row")
        return float(np.mean(measured))

    def rows(self) -> list[dict]:
        """One result row a trial, the dense model first: quality and cost of the same artefact.

        A time that other work disturbed is None, and `machine_busy` of its row is true.
        """
        dense = {
            "method": "dense",
            "label": "dense",
            "pattern": None,
            "seed": None,
            "sparsity": self.dense_zeros / self.prunable,
            "perplexity": self.dense.perplexity,
            "kl": 0.0,
            "agreement": 1.0,
            "nonzero_parameters": self.footprint.parameters - self.dense_zeros,
            **_costs(self.footprint),
            "machine_busy": self.footprint.timing is not None,
        }
        return [dense, *map(self._row, self.trials)]

    def _row(self, trial: Trial) -> dict:
        quality = trial.measurement.to_dict()
        return {
            "method": trial.report.method,
            "label": trial.label,
            "pattern": trial.report.pattern,
            "seed": trial.seed,
            "sparsity": trial.report.sparsity,
            **{
                key: quality[key]
                for key in ("perplexity", "kl", "agreement", "evaluation_tokens_per_second")
            },
            "seconds": trial.report.seconds,
            "peak_memory": trial.report.peak_memory,
            "nonzero_parameters": trial.nonzero_parameters,
            **_costs(trial.footprint),
            "machine_busy": bool(trial.untimed) or trial.footprint.timing is not None,
            **dict.fromkeys(trial.untimed),
        }


def compare(
    model,
    methods: Mapping[str, object],
    *,
    calibrations: Sequence[torch.Tensor],
    held_out: torch.Tensor,
    dense: DenseBaseline,
    speed: bool | None = None,
    reuse: bool | None = None,
    progress: bool = True,
) -> Comparison:
    """Prune a copy of the model with every method and calibration draw, and measure each on the
    same text.

    Args:
        model: the dense model; it is not changed.
        methods: label -> method object. A method that needs no data runs once.
        calibrations: one int64 `[n, length]` a seed, in the order of the seeds.
        held_out: int64 `[windows, length]`.
        dense: the baseline of `model` on `held_out`.
        speed: measure latency and generation too; a page that shows neither can do without. By
            default all but quick runs measure them: quick pages share the cores.
        reuse: take trials that an earlier call kept in the user's cache, and keep these there,
            unless other work disturbed their times; by default in the pages that `prunebook run`
            executes. What `sweep` asks for, their NLL, is kept in any case.

    Raises:
        UserError: as `prune` and `measure_quality` do.
    """
    jobs = [
        (label, method, seed)
        for label, method in methods.items()
        for seed in (range(len(calibrations)) if method.needs_calibration else [None])
    ]
    trials = []
    length = min(_LENGTH, held_out.shape[1])
    speed = not is_quick_run() if speed is None else speed
    reuse = pages_share() if reuse is None else reuse
    of_model = model_identity(model) if reuse else []
    for label, method, seed in tqdm(jobs, desc="prune and measure", disable=not progress):
        calibration = None if seed is None else calibrations[seed]
        timed = speed and not seed
        identity = None
        if reuse:
            asked = {
                "precision": dense.precision,
                "length": length,
                "speed": timed,
                "quick": is_quick_run(),
            }
            identity = trial_identity(of_model, method, calibration, held_out, asked)
        known = find_trial(identity) if identity else None
        if known is None:
            known = _try(model, method, calibration, held_out, dense, length, timed)
            disturbed = known["untimed"] or known["footprint"].timing
            if identity and (is_quick_run() or not disturbed):  # times of a quick run do not count
                keep_trial(identity, known)
            for_sweeps = _sweep_identity(
                of_model, model, method, calibration, held_out, dense.precision, reuse
            )
            if for_sweeps:
                keep_nll(for_sweeps, known["measurement"].nll)
        trials.append(Trial(label, seed, **known))
    protocol = _protocol(model, calibrations, held_out, dense)
    if speed:
        protocol["generation"] = "batch 1, greedy, 16 tokens read, 16 written"
    counted = "FLOPs, latency" if speed else "FLOPs"
    protocol["footprint"] = f"{counted} and key-value cache of {length} tokens, batch 1"
    costs = footprint(model, length, speed=speed)
    return Comparison(trials, dense, max(1, len(calibrations)), protocol, *_zeros(model), costs)


def _try(model, method, calibration, held_out, dense, length: int, timed: bool) -> dict:
    """Prune a copy of the model and measure it: the fields of a `Trial` but for its label and
    seed."""
    pruned = copy.deepcopy(model)
    with watch() as pruning:
        report = prune(pruned, method, calibration=calibration)
    costs = footprint(pruned, length, speed=timed)
    nonzero = costs.parameters - _zeros(pruned)[0]
    with watch() as evaluating:
        measured = measure_quality(pruned, held_out, dense, dense.precision)
    sections = {"seconds": pruning, "evaluation_tokens_per_second": evaluating}
    return {
        "report": report,
        "measurement": measured,
        "nonzero_parameters": nonzero,
        "footprint": costs,
        "untimed": tuple(column for column, section in sections.items() if section.busy),
    }


@malloc_pool()
def sweep(
    model,
    methods: Mapping[str, object],
    *,
    calibration: torch.Tensor,
    held_out: torch.Tensor,
    precision: str = "auto",
    reuse: bool | None = None,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Prune a copy of the model with every method and take its NLL alone: for curves of many
    points, at half the time of `compare`.

    Args:
        model: the dense model; it is not changed.
        methods: label -> method object.
        calibration: int64 `[n, length]`.
        held_out: int64 `[windows, length]`.
        precision: as for `measure_quality`.
        reuse: as for `compare`, whose trials are taken, too; times do not matter here.

    Returns:
        Label -> mean NLL of each held-out window in nats, `[1, windows]`.

    Raises:
        UserError: as `prune` and `measure_quality` do.
    """
    found = {}
    reuse = pages_share() if reuse is None else reuse
    of_model = model_identity(model) if reuse else []
    for label, method in tqdm(methods.items(), desc="sweep", disable=not progress):
        needed = calibration if method.needs_calibration else None
        identity = _sweep_identity(of_model, model, method, needed, held_out, precision, reuse)
        nll = find_nll(identity) if identity else None
        if nll is None:
            pruned = copy.deepcopy(model)
            prune(pruned, method, calibration=needed)
            nll = measure_quality(pruned, held_out, precision=precision).nll
            if identity:
                keep_nll(identity, nll)
        found[label] = nll[None].numpy()
    return found


def _sweep_identity(
    of_model, model, method, calibration, held_out, precision: str, reuse: bool
) -> list[str] | None:
    """What the NLL that a method leaves depends on, see `trial_identity`; None where nothing is
    shared."""
    if not reuse:
        return None
    return trial_identity(
        of_model, method, calibration, held_out, {"precision": resolve_precision(model, precision)}
    )


def _costs(of: Footprint) -> dict:
    """The columns of a result row."""
    return {
        "parameters": of.parameters,
        "bytes_on_disk": of.bytes,
        "flops": of.flops,
        "kv_cache_bytes": of.kv_cache_bytes,
        "latency": of.latency,
        "tokens_per_second": of.tokens_per_second,
    }


def _zeros(model) -> tuple[int, int]:
    """How many weights of the linears inside the blocks are zero, and how many there are."""
    zeros, sizes = zip(*count_zeros(model).values(), strict=True)
    return sum(zeros), sum(sizes)


def _protocol(model, calibrations, held_out, dense) -> dict:
    calibration = calibrations[0].shape if len(calibrations) else (0, 0)
    return {
        "model": getattr(model, "prunebook_source", model.config.name_or_path),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device_name(model.device),
        "calibration": f"{calibration[0]} x {calibration[1]} tokens",
        "seeds": len(calibrations),
        "evaluation": f"{held_out.shape[0]} x {held_out.shape[1]} tokens, windows without overlap",
        "evaluation_precision": dense.precision,
        "peak_memory": "allocated on the GPU"
        if model.device.type == "cuda"
        else "resident, whole process",
    }


def device_name(device: torch.device) -> str:
    """What a protocol calls the device: the GPU's name, or the CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads != 1)}"
