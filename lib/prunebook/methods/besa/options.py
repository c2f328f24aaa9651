"""Which options of BESA are possible."""

from typing import Any

from ...errors import UserError
from ...passes.precision import PRECISIONS
from ...validation import check_choices, check_flag, check_number, check_whole
from .candidates import candidate_rates, reachable

_CHOICES = {
    "granularity": ("row", "layer"),
    "reference": ("dense", "pruned"),
    "precision": PRECISIONS,
}


def check_options(method: Any) -> None:
    """Raise a `UserError` unless the options of a `BESA` are possible.

    Args:
        method: the object that has them as attributes.
    """
    check_choices(method, "besa", _CHOICES)
    for name in ("sigmoid", "exact_count"):
        check_flag(name, getattr(method, name))
    check_number("penalty", method.penalty, "a number >= 0, e.g. 5")
    check_whole("epochs", method.epochs, 1)
    if method.target.sparsity == 0:
        raise UserError(
            "sparsity 0 is not allowed for besa, which divides by it; use a number in (0, 1)"
        )
    # Only the sigmoid bounds what can be learned.
    low, high = reachable(candidate_rates())
    if method.sigmoid and not low < method.sparsity < high:
        raise UserError(
            f"sparsity {method.sparsity} is out of reach: with the sigmoid every rate lies "
            f"between {low:.3f} and {high:.3f}; use sigmoid=False"
        )
