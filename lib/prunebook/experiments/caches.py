"""Several caches on one model and the same text: what each costs in quality, memory and time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm
from transformers import Cache, DynamicCache

from ..caches.quality import check_prompt, measure
from ..errors import UserError
from ..measure.footprint import cache_bytes, timed_pass
from ..measure.quality import Measurement
from ..notebook.contention import BUSY, watch
from .compare import device_name

PLAIN = "full cache"
Factory = Callable[[], Cache]


@dataclass(frozen=True)
class CacheTrial:
    """One cache measured. `kind`: its class. `seed`: None unless its label has several draws.
    `held_bytes` of keys and values, of one window at the end; its last token is predicted, not
    read."""

    label: str
    kind: str
    seed: int | None
    measurement: Measurement
    held_bytes: int


@dataclass(frozen=True)
class CacheComparison:
    """Trials of several caches, the plain one first; see `compare`."""

    trials: list[CacheTrial]
    seeds: int
    protocol: dict

    def nll(self, label: str) -> np.ndarray:
        """Mean NLL of each window in nats `[seeds, windows]`; a cache without draws has the same
        row for every seed.

        Raises:
            UserError: a label that was not measured.
        """
        found = [trial.measurement.nll for trial in self.trials if trial.label == label]
        if not found:
            known = ", ".join(dict.fromkeys(trial.label for trial in self.trials))
            raise UserError(f"cache {label!r} was not measured; there are {known}")
        stacked = torch.stack(found).numpy()
        return stacked if len(stacked) == self.seeds else np.repeat(stacked, self.seeds, axis=0)

    def perplexity(self, label: str) -> float:
        """exp(mean NLL over windows and draws)."""
        return float(np.exp(self.nll(label).mean()))

    def rows(self) -> list[dict]:
        """A result row a trial."""
        return [
            {
                "method": trial.kind,
                "label": trial.label,
                "seed": trial.seed,
                "perplexity": trial.measurement.perplexity,
                "kv_cache_bytes": trial.held_bytes,
            }
            for trial in self.trials
        ]


def compare_caches(
    model,
    caches: Mapping[str, Factory | Sequence[Factory]],
    tokens: torch.Tensor,
    *,
    prompt: int,
    progress: bool = True,
) -> CacheComparison:
    """Read the same windows with the plain cache and with each other one; see `measure`.

    Args:
        caches: label -> what makes a new cache, as `lambda: H2OCache(0.2)`; or several such, one a
            draw of its noise. "full cache" is the plain one's.
        tokens: int64 `[n, length]`.
        prompt: tokens of each window that are read first.

    Raises:
        UserError: a label that is taken, unequal numbers of draws, bad tokens or prompt, or a model
            that a cache refuses.
    """
    if PLAIN in caches:
        raise UserError(
            f"label {PLAIN!r} is the plain cache's, which is measured in any case; use another"
        )
    every = {PLAIN: DynamicCache, **caches}
    makers = {label: [made] if callable(made) else list(made) for label, made in every.items()}
    counts = {label: len(draws) for label, draws in makers.items() if len(draws) != 1}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        given = ", ".join(f"{label} {count}" for label, count in counts.items())
        raise UserError(f"draws: {given}; use the same number for all that have several")
    jobs = [
        (label, draw, seed if len(draws) > 1 else None)
        for label, draws in makers.items()
        for seed, draw in enumerate(draws)
    ]
    trials = []
    for label, make, seed in tqdm(jobs, desc="caches", disable=not progress):
        last = _Last(make)
        measured = measure(model, tokens, last, prompt=prompt)
        kind = "plain" if label == PLAIN else type(last.cache).__name__
        trials.append(CacheTrial(label, kind, seed, measured, cache_bytes(last.cache) // last.rows))
    predicted = tokens.shape[1] - prompt
    protocol = {
        "model": getattr(model, "prunebook_source", model.config.name_or_path),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device_name(model.device),
        "evaluation": f"{len(tokens)} x {prompt} "
        f"tokens of prompt, "
        f"then {predicted} "
        f"predicted "
        f"one after the other",
        "seeds": max(map(len, makers.values())),
    }
    return CacheComparison(trials, protocol["seeds"], protocol)


class _Last:
    """Makes caches and remembers the last one, and the rows of its batch."""

    def __init__(self, make: Factory):
        self.make = make

    def __call__(self) -> Cache:
        self.cache = self.make()
        return self.cache

    @property
    def rows(self) -> int:
        return self.cache.layers[0].keys.shape[0]


@dataclass(frozen=True)
class Steps:
    """Decoding steps of one cache: `seconds` of each, and `held_bytes` of keys and values, of the
    whole batch, after each, both `[steps]`; and `prompt_seconds` before them. Times are None if
    other work disturbed them."""

    prompt_seconds: float | None
    seconds: np.ndarray | None
    held_bytes: np.ndarray

    def __str__(self) -> str:
        if self.seconds is None:
            return BUSY
        return f"{1e3 * np.median(self.seconds):.0f} ms a step, {self.prompt_seconds:.1f} s for the prompt"


@torch.no_grad()
def time_steps(
    model, caches: Mapping[str, Factory], tokens: torch.Tensor, *, prompt: int
) -> dict[str, Steps]:
    """Time decoding after a prompt, one step of each cache in turn. Prompts and steps are watched
    apart; where other work disturbed either, nothing is timed.

    Args:
        caches: label -> what makes a new cache.
        tokens: int64 `[n, length]`, decoded together.
        prompt: tokens read
            first; the others are the steps, the first of which warms up and is not counted.

    Raises:
        UserError: bad tokens or prompt, or a model that a cache refuses.
    """
    check_prompt(model, tokens, prompt)
    tokens = tokens.to(model.device)
    made = {label: make() for label, make in caches.items()}
    with watch() as reading:
        before = {
            label: timed_pass(model, tokens[:, :prompt], past_key_values=cache, logits_to_keep=1)
            for label, cache in made.items()
        }
    seconds = {label: [] for label in caches}
    held = {label: [] for label in caches}
    with watch() as decoding:
        for token in tokens[:, prompt:].split(1, dim=1):
            for label, cache in made.items():
                seconds[label].append(timed_pass(model, token, past_key_values=cache))
                held[label].append(cache_bytes(cache))
    held = {label: np.array(each[1:]) for label, each in held.items()}
    if reading.busy or decoding.busy:
        return {label: Steps(None, None, held[label]) for label in caches}
    return {
        label: Steps(before[label], np.array(seconds[label][1:]), held[label]) for label in caches
    }
