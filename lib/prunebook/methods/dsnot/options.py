"""Which options of DSnoT are possible."""

from typing import Any

from ...errors import UserError
from ...sparsity.patterns import NofM
from ...validation import check_choices, check_flag, check_number, check_whole
from ..base import check_scope
from .as_released import AS_RELEASED
from .first_mask import CRITERIA


def check_options(method: Any) -> None:
    """Raise a `UserError` unless the options of a `DSnoT` are possible.

    Args:
        method: the object that has them as attributes.
    """
    # The first mask is compared within rows, or within a layer if a pattern object says so.
    check_scope(method.target, "dsnot", ("row", "layer"))
    check_choices(method, "dsnot", {"criterion": CRITERIA})
    check_whole("cycles", method.cycles, 0, example=50)
    for name in ("threshold", "variance_power"):
        check_number(name, getattr(method, name))
    check_flag("overshoot", method.overshoot)
    words = method.as_released
    if not isinstance(words, tuple) or any(word not in AS_RELEASED for word in words):
        allowed = ", ".join(map(repr, AS_RELEASED))
        raise UserError(f"as_released {words!r} is not allowed; use a tuple of {allowed}")
    # The released n:m loop has no queue of weights that go.
    if "queues" in words and isinstance(method.target, NofM):
        raise UserError(
            f"as_released 'queues' is not allowed with pattern {method.target}; leave it out, or "
            "use sparsity"
        )
