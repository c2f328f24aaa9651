"""Which options of the LLM Surgeon are possible."""

from typing import Any

from ...errors import UserError
from ...passes.precision import PRECISIONS
from ...sparsity.patterns import NofM
from ...validation import check_choices, check_number, check_whole
from .study import CRITERIA, STRUCTURES

_CHOICES = {
    "structure": STRUCTURES,
    "criterion": CRITERIA,
    "scope": ("model", "layer"),
    "precision": PRECISIONS,
}


def check_options(method: Any) -> None:
    """Raise a `UserError` unless the options of an `LLMSurgeon` are possible.

    Args:
        method: the object that has them as attributes.
    """
    check_choices(method, "llm-surgeon", _CHOICES)
    check_whole("shots", method.shots, 1)
    if method.max_correlate is not None:
        check_whole("max_correlate", method.max_correlate, 1)
    check_number("damping", method.damping, "a fraction >= 0, e.g. 0.01")
    # A pattern object could ask for another scope than the options do.
    is_n_of_m = isinstance(method.target, NofM)
    if not is_n_of_m and method.target.scope != method.scope:
        raise UserError(
            f"pattern {method.target} is not allowed for llm-surgeon; use sparsity and scope, or "
            "n:m"
        )
    # n:m is a pattern of entries.
    if is_n_of_m and method.structure != "elements":
        raise UserError(
            f"pattern {method.target} is not allowed for rows+columns; use sparsity or elements"
        )
