"""Mixed n:m: a pattern for each block near its own sparsity, with a given average over the model.

Yin et al., Outlier Weighed Layerwise Sparsity (OWL) (arXiv 2310.05175); official code luuyin/OWL at
dddb7a4 (`prune_wanda_outlier_structure`), which rounds every block on its own.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import UserError
from ...sparsity.patterns import NofM

# How far a sum of shares may be from the number that it means.
_ROUNDING = 1e-9


def mixed_n_of_m(
    rates: Mapping[str, float],
    units: Sequence[Sequence[str]],
    sizes: Mapping[str, int],
    average: NofM,
) -> dict[str, NofM]:
    """What each unit keeps of a group: its own density, rounded so that the average is met.

    A unit's n is rounded down, then raised by one for the largest remainders as long as the mean
    over all weights does not exceed the average's n.

    Args:
        rates: name of linear -> sparsity; linears of a unit have the same.
        units: names of the linears that share a pattern.
        sizes: name of linear -> number of weights.
        average: the n:m that all weights together must not exceed.

    Returns:
        Name of linear -> its n:m.

    Raises:
        UserError: a unit would keep nothing of a group, or all of it.
    """
    m = average.m
    total = sum(sizes.values())
    exact = np.array([m * (1 - rates[unit[0]]) for unit in units])
    share = np.array([sum(sizes[name] for name in unit) for unit in units]) / total
    n = np.floor(exact + _ROUNDING)
    # The most negative difference belongs to the largest remainder; ties go by index.
    for i in np.argsort(n - exact, kind="stable"):
        if share @ n + share[i] <= average.n + _ROUNDING:
            n[i] += 1
    if n.min() < 1 or n.max() >= m:
        raise UserError(
            f"spread leaves no weight of a group, or all {m}; use a smaller spread for {average}"
        )
    patterns = {}
    for unit, count in zip(units, n, strict=True):
        patterns |= dict.fromkeys(unit, NofM(int(count), m))
    return patterns
