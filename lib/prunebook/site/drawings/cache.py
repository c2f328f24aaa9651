"""Drawing of a key-value cache that forgets."""

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from ...errors import UserError
from ...notebook.palette import BLUE, ORANGE
from .canvas import EMPTY, LINE, SMALL, TEXT, Drawing, as_array, bare, cells

_COLOURS = np.array([to_rgb(colour) for colour in ("white", EMPTY, BLUE, ORANGE)])
_FUTURE, _EVICTED, _RECENT, _HEAVY = range(4)


def cached_positions(logits, budget: int, window: int) -> np.ndarray:
    """Which positions one head still holds after each step, by H2O's rule.

    The newest `window` stay and, of the rest, those with the largest sum of attention received so
    far; `budget == window` leaves the window alone. Attention is the softmax over what is held and
    the new token. An evicted position does not come back.

    Args:
        logits: `[steps, steps]`; row t holds the products of query t with keys 0..t, the rest is
            not read.
        budget: largest number of positions held.
        window: number of newest positions that always stay.

    Returns:
        bool `[steps, steps]`, True where position j is held after step t.

    Raises:
        UserError: a budget below 1, or a window outside 0..budget.
    """
    logits = as_array(logits, 2, "logits")
    if budget < 1 or not 0 <= window <= budget:
        raise UserError(
            f"budget {budget} and window {window} are not allowed; use 0 <= window <= budget, "
            "budget >= 1"
        )
    held = np.zeros(logits.shape, dtype=bool)
    collected = np.zeros(len(logits))
    here = np.zeros(len(logits), dtype=bool)
    for t, row in enumerate(logits):
        here[t] = True
        weights = np.where(here, np.exp(row - row[here].max()), 0)
        collected += weights / weights.sum()
        if here.sum() > budget:
            candidates = np.flatnonzero(here[: t + 1 - window])
            here[candidates[np.argmin(collected[candidates])]] = False
        held[t] = here
    return held


def cache_eviction(held: Mapping, window: int) -> Drawing:
    """What the cache holds, step after step, under each rule.

    Args:
        held: title -> bool `[steps, steps]`, e.g. from `cached_positions`.
        window: number of newest positions, which have a colour of their own.
    """
    figure = Drawing(2.6)
    for axis, (title, mask) in zip(
        figure.subplots(1, len(held), squeeze=False)[0], held.items(), strict=True
    ):
        mask = as_array(mask, 2, f"{title!r}")
        steps = np.arange(len(mask))
        age = steps[:, None] - steps[None, :]
        state = np.where(mask, np.where(age < window, _RECENT, _HEAVY), _EVICTED)
        state[age < 0] = _FUTURE
        cells(axis, _COLOURS[state])
        bare(axis, len(mask), len(mask), f"{title}\n{int(mask[-1].sum())} held")
        axis.text(
            len(mask) / 2, -len(mask) - 0.4, "position →", fontsize=SMALL, ha="center", va="top"
        )
    figure.axes[0].text(
        -0.6, -len(mask) / 2, "← step", fontsize=SMALL, ha="right", va="center", rotation=90
    )
    shown = ((BLUE, "newest"), (ORANGE, "older, held"), (EMPTY, "gone"))
    handles = [Patch(facecolor=colour, edgecolor=LINE, label=label) for colour, label in shown]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=3,
        fontsize=TEXT,
        frameon=False,
        columnspacing=1,
    )
    return figure
