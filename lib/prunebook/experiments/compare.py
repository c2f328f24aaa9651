"""Several methods or caches on one model and the same text: one comparison, under one protocol."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from ..errors import UserError
from ..measure.baseline import DenseBaseline
from ..measure.memory import malloc_pool
from ..measure.quality import measure_quality
from ..methods.base import Method
from ..notebook.gaps import Gap, gap
from ..notebook.quick import is_quick_run
from .protocol import comparison_protocol
from .trial_cache import TrialCache
from .trials import Trial, measure_dense, prune_with, run_trial

FOOTPRINT_TOKENS = 128  # length of the pass whose FLOPs, cache and latency are taken


class Measured(Protocol):
    """What a comparison asks of a trial, whether of a method or of a cache.

    label: name of what was measured; its draws share it.
    nll: mean NLL of each window in nats, float32 `[windows]`.
    """

    label: str

    @property
    def nll(self) -> torch.Tensor: ...

    def row(self) -> dict[str, Any]:
        """The result row."""


@dataclass(frozen=True)
class Comparison:
    """Trials of several methods or caches beside a baseline, with the protocol they share.

    baseline: what all are compared with: the dense model, or the plain cache.
    trials: one for each label and draw.
    seeds: number of draws.
    protocol: model, text, windows, draws, device: what the numbers depend on.
    """

    baseline: Measured
    trials: list[Any]
    seeds: int
    protocol: dict[str, Any]

    def of(self, label: str) -> list[Any]:
        """The trials of one method or cache, one for each of its draws.

        Raises:
            UserError: a label that was not measured.
        """
        if label == self.baseline.label:
            return [self.baseline]
        trials = [trial for trial in self.trials if trial.label == label]
        if not trials:
            known = ", ".join(self.labels)
            raise UserError(f"{label!r} was not measured; there are {known}")
        return trials

    def nll(self, label: str) -> np.ndarray:
        """Mean NLL of each window in nats, `[seeds, windows]`, as `pb.gap` takes it.

        What has no draws, such as the baseline, has the same row for every seed.

        Raises:
            UserError: a label that was not measured.
        """
        stacked = torch.stack([trial.nll for trial in self.of(label)]).numpy()
        if len(stacked) == self.seeds:
            return stacked
        return np.repeat(stacked, self.seeds, axis=0)

    def perplexity(self, label: str) -> np.ndarray:
        """Perplexity of each draw, `[seeds]`."""
        return np.exp(self.nll(label).mean(axis=1))

    def mean(self, label: str, quantity: str) -> float:
        """Mean over the draws of a quantity of the result rows.

        Args:
            label: name of a method or cache.
            quantity: a column, e.g. `perplexity`, `kl`, `sparsity`, `seconds`.

        Raises:
            UserError: it was measured for no draw, as a time on a busy machine.
        """
        values = [row[quantity] for row in self.rows() if row["label"] == label]
        measured = [value for value in values if value is not None]
        if not measured:
            raise UserError(f"{quantity} of {label!r} was not measured; see its row")
        return float(np.mean(measured))

    @property
    def labels(self) -> list[str]:
        """The labels of all that was measured, the baseline's first, each once."""
        return list(dict.fromkeys([self.baseline.label, *(trial.label for trial in self.trials)]))

    def gap(self, lower: str, higher: str) -> Gap:
        """Test whether one method or cache lies below another, paired by window and draw.

        Args:
            lower: label of what should have the lower loss.
            higher: label of what should have the higher loss.
        """
        trials = [*self.of(lower), *self.of(higher)]
        # A method that needs no text, or a cache without noise, has no draw.
        drawn = any(getattr(trial, "seed", None) is not None for trial in trials)
        return gap(self.nll(lower), self.nll(higher), drawn=drawn)

    def beside(self, *labels: str) -> str:
        """Mean perplexities as text, e.g. `Wanda 47.20, SparseGPT 44.02 (dense 26.67)`."""
        numbers = [f"{label} {self.mean(label, 'perplexity'):,.2f}" for label in labels]
        base = self.baseline.label
        return f"{', '.join(numbers)} ({base} {self.mean(base, 'perplexity'):,.2f})"

    def rows(self) -> list[dict[str, Any]]:
        """One result row a trial, the baseline first.

        A time that other work disturbed is None, and `machine_busy` of its row is true.
        """
        rows = [trial.row() for trial in (self.baseline, *self.trials)]
        # A ratio of perplexities can be compared between texts, a perplexity cannot.
        baseline = rows[0]["perplexity"]
        return [{**row, "perplexity_ratio": row["perplexity"] / baseline} for row in rows]

    def losses(self) -> dict[str, list[list[float]]]:
        """Label -> mean NLL in nats of each draw and window, `[draws][windows]`, for the record."""
        return {
            label: [trial.nll.double().round(decimals=6).tolist() for trial in self.of(label)]
            for label in self.labels
        }


def compare(
    model: PreTrainedModel,
    methods: Mapping[str, Method],
    *,
    calibrations: Sequence[torch.Tensor],
    held_out: torch.Tensor,
    dense: DenseBaseline,
    speed: bool | None = None,
    reuse: bool | None = None,
    progress: bool = True,
) -> Comparison:
    """Prune a copy of the model with every method and draw, and measure each on the same text.

    Args:
        model: the dense model; it is not changed.
        methods: label -> method object. A method that needs no text runs once.
        calibrations: one int64 `[n, length]` for each seed, in their order.
        held_out: int64 `[windows, length]`.
        dense: the baseline of `model` on `held_out`.
        speed: measure latency and generation too; a page that shows neither can do without. By
            default all but quick runs measure them: quick pages share the cores.
        reuse: take trials that an earlier call kept in the user's cache, and keep these there,
            unless other work disturbed their times. By default so in the pages that
            `prunebook run` executes.
        progress: show a progress bar.

    Raises:
        UserError: as `prune` and `measure_quality` do.
    """
    if speed is None:
        speed = not is_quick_run()
    length = min(FOOTPRINT_TOKENS, held_out.shape[1])
    cache = TrialCache(model, held_out, dense.precision, reuse)
    trials = []
    jobs = list(_draws(methods, calibrations))
    for label, method, seed, text in tqdm(jobs, desc="prune and measure", disable=not progress):
        settings = {"length": length, "speed": speed and not seed}
        make = partial(run_trial, model, method, text, held_out, dense, **settings)
        trials.append(Trial(label, seed, **cache.trial(method, text, settings, make)))
    protocol = comparison_protocol(model, calibrations, held_out, dense, speed, length)
    baseline = measure_dense(model, dense, length, speed=speed)
    return Comparison(baseline, trials, max(1, len(calibrations)), protocol)


def _draws(
    methods: Mapping[str, Method], calibrations: Sequence[torch.Tensor]
) -> Iterator[tuple[str, Method, int | None, torch.Tensor | None]]:
    """Label, method, seed and text of each trial."""
    for label, method in methods.items():
        if method.text_argument() is None:
            yield label, method, None, None
            continue
        for seed, text in enumerate(calibrations):
            yield label, method, seed, text


@malloc_pool()
def sweep(
    model: PreTrainedModel,
    methods: Mapping[str, Method],
    *,
    calibration: torch.Tensor,
    held_out: torch.Tensor,
    precision: str = "auto",
    reuse: bool | None = None,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Prune a copy of the model with every method and take its NLL alone.

    It is for curves of many points: a point takes half the time of a trial of `compare`.

    Args:
        model: the dense model; it is not changed.
        methods: label -> method object.
        calibration: int64 `[n, length]`.
        held_out: int64 `[windows, length]`.
        precision: as for `measure_quality`.
        reuse: as for `compare`, whose trials are taken, too; times do not matter here.
        progress: show a progress bar.

    Returns:
        Label -> mean NLL of each held-out window in nats, `[1, windows]`.

    Raises:
        UserError: as `prune` and `measure_quality` do.
    """

    def nll_of(method: Method, text: torch.Tensor | None) -> torch.Tensor:
        pruned = copy.deepcopy(model)
        prune_with(pruned, method, text)
        return measure_quality(pruned, held_out, precision=precision).nll

    curve = {}
    cache = TrialCache(model, held_out, precision, reuse)
    jobs = list(_draws(methods, [calibration]))
    for label, method, _, text in tqdm(jobs, desc="sweep", disable=not progress):
        nll = cache.nll(method, text, partial(nll_of, method, text))
        curve[label] = nll[None].numpy()
    return curve
