"""Which options of OWL are possible."""

from typing import Any

from ...errors import UserError
from ...validation import check_flag, check_number
from .outliers import check_granularity


def check_options(method: Any) -> None:
    """Raise a `UserError` unless the options of an `OWL` are possible.

    Args:
        method: the object that has them as attributes.
    """
    check_number("multiplier", method.multiplier)
    if method.spread is not None:
        check_number("spread", method.spread)
    check_granularity(method.granularity)
    check_flag("exact_count", method.exact_count)
    # The base method, which checks its own options when it is made, must prune to given rates.
    if not method.pruner.takes_allocation:
        raise UserError(
            f"base {method.base!r} takes no allocation; use a method that declares "
            "takes_allocation, e.g. 'wanda'"
        )
