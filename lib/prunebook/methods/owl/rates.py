"""OWL's sparsities: what a layer loses, by how many outliers it has.

Yin et al., Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to
High Sparsity (arXiv 2310.05175), section 3; official code luuyin/OWL at dddb7a4.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import UserError
from ...sparsity.allocation import shifted_rates
from ...sparsity.patterns import NofM, Pattern, Unstructured

# lambda where none is given; for n:m it is in weights of a group
_SPREAD = 0.08
_SPREAD_OF_GROUP = 1.0
# The official code prunes a layer whose rate is 0 to this sparsity.
_IN_PLACE_OF_ZERO = 0.01
# No layer loses more than this, unless the target itself is nearly as high.
_HIGHEST = 0.99


def owl_rates(
    distribution: Sequence[float],
    sparsity: float,
    spread: float = 0.08,
    sizes: Sequence[int] | None = None,
) -> list[float]:
    """OWL's sparsities: the more outliers, the less is removed; their mean is the target.

    D is stretched to a range of `2 * spread` and centred on its mean, as in the official code. One
    side can then be farther than `spread` from the target, which the paper does not say. Rates that
    would leave [0, 0.99] are clipped and the others shifted, so that the mean holds.

    Args:
        distribution: D of each layer.
        sparsity: S, the target.
        spread: lambda.
        sizes: weights of each layer, for the mean; None for equal sizes.

    Returns:
        S_l of each layer.

    Raises:
        UserError: a sparsity outside [0, 1), or a negative spread.
    """
    if not 0 <= sparsity < 1:
        raise UserError(f"sparsity {sparsity!r} is not allowed; use a number in [0, 1)")
    if not spread >= 0:
        raise UserError(f"spread {spread!r} is not allowed; use a number >= 0, e.g. 0.08")
    D = np.asarray(distribution, dtype=np.float64)
    share = np.ones(len(D))
    if sizes is not None:
        share = np.asarray(sizes, dtype=np.float64)
    share /= share.sum()
    # g_l = 2 lambda (D_l - min D) / (max D - min D); equal D give equal rates
    g = 2 * spread * ((D - D.min()) / (np.ptp(D) or 1))
    # S_l = 1 - d_l with the density d_l = g_l - mean(g) + 1 - S
    rates = sparsity - (g - share @ g)
    highest = max(_HIGHEST, (1 + sparsity) / 2)
    if rates.min() < 0 or rates.max() > highest:
        rates = shifted_rates(rates, share, sparsity, highest)
    return rates.tolist()


def spread_of(target: Pattern, spread: float | None) -> float:
    """lambda as a fraction of the weights.

    Args:
        target: the pattern of the whole model.
        spread: lambda as the user gives it, for n:m in weights of a group; None for 0.08, or for
            one weight of a group.
    """
    if isinstance(target, NofM):
        if spread is None:
            spread = _SPREAD_OF_GROUP
        return spread / target.m
    if spread is None:
        return _SPREAD
    return spread


def rounded_down(rates: Mapping[str, float], scope: str) -> dict[str, Unstructured]:
    """Patterns as in the official code: every row or layer rounds its own count down.

    Args:
        rates: name of linear -> its sparsity.
        scope: what is compared, a `row` or a `layer`.
    """
    patterns = {}
    for name, rate in rates.items():
        patterns[name] = Unstructured(rate or _IN_PLACE_OF_ZERO, scope)
    return patterns
