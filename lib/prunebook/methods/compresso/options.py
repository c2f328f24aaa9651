"""Which options of Compresso are possible."""

from typing import Any

from ...errors import UserError
from ...validation import check_flag, check_fraction, check_number, check_whole

RAMP = 0.5  # share of the steps in which the target grows: 4 of 8 epochs in the official script
_LORA_ONLY = f"a share of the steps from 0 to {1 - RAMP}"


def check_options(method: Any) -> None:
    """Raise a `UserError` unless the options that are `Compresso`'s own are possible.

    Args:
        method: the object that has them as attributes.
    """
    check_fraction("sparsity", method.sparsity)
    check_whole("rank", method.rank, 1)
    for name in ("mask_rate", "multiplier_rate"):
        check_number(name, getattr(method, name))
    # The ramp needs its share of the steps.
    check_number("lora_only", method.lora_only, _LORA_ONLY)
    if method.lora_only > 1 - RAMP:
        raise UserError(f"lora_only {method.lora_only} is not allowed; use {_LORA_ONLY}")
    check_flag("hidden", method.hidden)
