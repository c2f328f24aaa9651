"""Several caches on one model and the same text: what each costs in quality, memory and time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import Cache, DynamicCache, PreTrainedModel

from ..caches.quality import check_prompt, measure
from ..errors import UserError
from ..measure.footprint import cache_bytes, timed_pass
from ..measure.quality import Measurement
from ..notebook.contention import BUSY, watch
from .compare import Comparison
from .protocol import model_protocol

PLAIN = "full cache"  # label of the plain cache
Factory = Callable[[], Cache]


@dataclass(frozen=True)
class CacheTrial:
    """One cache, measured with one draw of its noise.

    label: name of the cache in the comparison.
    kind: its class; `plain` for the plain cache.
    seed: number of the draw; None unless the label has several.
    measurement: quality on the text.
    held_bytes: bytes of the keys and values of one window at its end; its last token is predicted
        and not read.
    """

    label: str
    kind: str
    seed: int | None
    measurement: Measurement
    held_bytes: int

    @property
    def nll(self) -> torch.Tensor:
        """Mean NLL of each window in nats, `[windows]`."""
        return self.measurement.nll

    def row(self) -> dict[str, Any]:
        """The result row."""
        return {
            "method": self.kind,
            "label": self.label,
            "seed": self.seed,
            "perplexity": self.measurement.perplexity,
            "kv_cache_bytes": self.held_bytes,
        }


class CacheComparison(Comparison):
    """A `Comparison` of caches beside the plain one; its perplexity is one number."""

    def perplexity(self, label: str) -> float:
        """exp(mean NLL over windows and draws)."""
        return float(np.exp(self.nll(label).mean()))


def compare_caches(
    model: PreTrainedModel,
    caches: Mapping[str, Factory | Sequence[Factory]],
    tokens: torch.Tensor,
    *,
    prompt: int,
    progress: bool = True,
) -> CacheComparison:
    """Read the same windows with the plain cache and with each other one; see `caches.measure`.

    Args:
        model: a causal language model.
        caches: label -> what makes a new cache, e.g. `lambda: H2OCache(0.2)`; or several such, one
            for each draw of its noise. The label "full cache" is the plain one's.
        tokens: int64 `[n, length]`.
        prompt: tokens of each window that are read first.
        progress: show a progress bar.

    Raises:
        UserError: a label that is taken, unequal numbers of draws, bad tokens or prompt, or a model
            that a cache refuses.
    """
    makers = _makers(caches)
    trials = []
    for label, make, seed in tqdm(list(_draws(makers)), desc="caches", disable=not progress):
        trials.append(_run_trial(model, label, make, seed, tokens, prompt))
    seeds = max(map(len, makers.values()))
    predicted = tokens.shape[1] - prompt
    protocol = {
        **model_protocol(model),
        "evaluation": (
            f"{len(tokens)} x {prompt} tokens of prompt, then {predicted} predicted one after the "
            "other"
        ),
        "seeds": seeds,
    }
    return CacheComparison(trials[0], trials[1:], seeds, protocol)


def _makers(caches: Mapping[str, Factory | Sequence[Factory]]) -> dict[str, list[Factory]]:
    """Label -> what makes the cache of each draw, the plain cache first.

    Raises:
        UserError: a label that is taken, or unequal numbers of draws.
    """
    if PLAIN in caches:
        raise UserError(
            f"label {PLAIN!r} is the plain cache's, which is measured in any case; use another"
        )
    makers = {PLAIN: [DynamicCache]}
    for label, draws in caches.items():
        makers[label] = [draws] if callable(draws) else list(draws)
    counts = {label: len(draws) for label, draws in makers.items() if len(draws) != 1}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        listed = ", ".join(f"{label} {count}" for label, count in counts.items())
        raise UserError(f"draws: {listed}; use the same number for all that have several")
    return makers


def _draws(makers: Mapping[str, Sequence[Factory]]) -> Iterator[tuple[str, Factory, int | None]]:
    """Label, what makes the cache, and seed of each trial."""
    for label, draws in makers.items():
        if len(draws) == 1:
            yield label, draws[0], None
            continue
        for seed, make in enumerate(draws):
            yield label, make, seed


def _run_trial(
    model: PreTrainedModel,
    label: str,
    make: Factory,
    seed: int | None,
    tokens: torch.Tensor,
    prompt: int,
) -> CacheTrial:
    """Measure one cache; arguments as for `compare_caches`."""
    last = _Last(make)
    measurement = measure(model, tokens, last, prompt=prompt)
    kind = "plain" if label == PLAIN else type(last.cache).__name__
    return CacheTrial(label, kind, seed, measurement, cache_bytes(last.cache) // last.rows)


class _Last:
    """Makes caches and remembers the last one."""

    def __init__(self, make: Factory):
        self.make = make

    def __call__(self) -> Cache:
        self.cache = self.make()
        return self.cache

    @property
    def rows(self) -> int:
        """Rows of its batch."""
        return self.cache.layers[0].keys.shape[0]


@dataclass(frozen=True)
class Steps:
    """Decoding steps of one cache, timed.

    prompt_seconds: seconds to read the prompt; None if other work disturbed the times.
    seconds: seconds of each step, `[steps]`; None likewise.
    held_bytes: bytes of the keys and values of the whole batch after each step, `[steps]`.
    """

    prompt_seconds: float | None
    seconds: np.ndarray | None
    held_bytes: np.ndarray

    def __str__(self) -> str:
        if self.seconds is None:
            return BUSY
        milliseconds = 1e3 * np.median(self.seconds)
        return f"{milliseconds:.0f} ms a step, {self.prompt_seconds:.1f} s for the prompt"


@torch.no_grad()
def time_steps(
    model: PreTrainedModel, caches: Mapping[str, Factory], tokens: torch.Tensor, *, prompt: int
) -> dict[str, Steps]:
    """Time decoding after a prompt, one step of each cache in turn.

    Prompts and steps are watched apart; where other work disturbed either, nothing is timed.

    Args:
        model: a causal language model.
        caches: label -> what makes a new cache.
        tokens: int64 `[n, length]`, decoded together.
        prompt: tokens read first; the others are the steps, the first of which warms up and is not
            counted.

    Raises:
        UserError: bad tokens or prompt, or a model that a cache refuses.
    """
    check_prompt(model, tokens, prompt)
    tokens = tokens.to(model.device)
    timed = {label: make() for label, make in caches.items()}
    prompt_seconds = {}
    with watch() as reading:
        for label, cache in timed.items():
            prompt_seconds[label] = timed_pass(
                model, tokens[:, :prompt], past_key_values=cache, logits_to_keep=1
            )
    seconds = {label: [] for label in caches}
    held = {label: [] for label in caches}
    with watch() as decoding:
        for token in tokens[:, prompt:].split(1, dim=1):
            for label, cache in timed.items():
                seconds[label].append(timed_pass(model, token, past_key_values=cache))
                held[label].append(cache_bytes(cache))
    steps = {}
    for label in caches:
        steps[label] = Steps(
            prompt_seconds[label], np.array(seconds[label][1:]), np.array(held[label][1:])
        )
        if reading.busy or decoding.busy:
            steps[label] = Steps(None, None, steps[label].held_bytes)
    return steps
