"""Which options of K-prune are possible."""

from typing import Any

from ...errors import UserError
from ...passes.precision import PRECISIONS
from ...validation import check_choices, check_flag, check_fraction, check_number


def check_options(method: Any) -> None:
    """Raise a `UserError` unless the options of a `KPrune` are possible.

    Args:
        method: the object that has them as attributes.
    """
    check_choices(method, "k-prune", {"precision": PRECISIONS})
    check_fraction("sparsity", method.sparsity)
    for option in ("predictive", "representational", "head_weight", "temperature", "damping"):
        check_number(option, getattr(method, option))
    for option in ("tune", "refresh"):
        check_flag(option, getattr(method, option))
    for option, example in (("temperature", 2.0), ("representational", 2.5e-4)):
        if not getattr(method, option):
            raise UserError(f"{option} 0 is not allowed; use a number above 0, e.g. {example}")
