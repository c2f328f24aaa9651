"""Which options of LLM-Pruner are possible."""

from typing import Any

from ...errors import UserError
from ...passes.precision import PRECISIONS
from ...validation import check_choices, check_fraction, check_one_of, check_whole
from .group_scores import AGGREGATIONS
from .taylor import CRITERIA

_CHOICES = {
    "criterion": (*CRITERIA, "random"),
    "aggregation": AGGREGATIONS,
    "structure": ("block", "channel"),
    "precision": PRECISIONS,
}


def check_options(method: Any) -> None:
    """Raise a `UserError` unless the options of an `LLMPruner` are possible.

    Args:
        method: the object that has them as attributes.
    """
    check_choices(method, "llm-pruner", _CHOICES)
    check_one_of(method, "sparsity", "ratio")
    if method.ratio is None:
        check_fraction("sparsity", method.sparsity)
    else:
        check_fraction("ratio", method.ratio)
    # Channels of the whole model are counted by sparsity alone, and compared by their scores.
    has_ratio = method.ratio is not None
    if method.structure == "channel" and (has_ratio or method.criterion == "random"):
        raise UserError(
            "structure 'channel' goes with sparsity and scores; leave out ratio and criterion "
            "'random'"
        )
    for option in ("keep_first", "keep_last", "seed"):
        check_whole(option, getattr(method, option), 0)
