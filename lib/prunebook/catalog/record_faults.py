"""What is wrong with a record, in words: one line for each fault that pydantic finds."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .fields import PATTERNS

# pydantic's fault -> what the field must be
_TYPES = {
    "string_type": "text (quote it)",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "a mapping of fields",
    "date_type": "a date, YYYY-MM-DD",
}
TWICE = "given_twice"  # a fault of ours: two entries of a list share what must be unique


def describe(fault: Mapping[str, Any], models: Mapping[str, type[BaseModel]]) -> str:
    """One of pydantic's faults as `paper.field[0]: what was given; what is allowed`.

    Args:
        fault: an entry of `ValidationError.errors()`.
        models: name of a field that holds models -> the model, for the fields that it allows.
    """
    field = _place(fault["loc"])
    value = fault["input"]
    context = fault.get("ctx", {})
    if fault["type"] == TWICE:
        return f"{field}: {fault['msg']}"
    match fault["type"]:
        case "missing":
            return f"{field}: missing"
        case "extra_forbidden":
            names = [key for key in ("paper", *fault["loc"][:-1]) if isinstance(key, str)]
            allowed = ", ".join(models[names[-1]].model_fields)
            return f"{field}: unknown field; allowed: {allowed}"
        case "literal_error":
            allowed = context["expected"].replace(" or ", ", ")
            return f"{field}: {value!r} is not allowed; allowed: {allowed}"
        case "string_pattern_mismatch":
            return f"{field}: {value!r} must be {PATTERNS[context['pattern']]}"
        case "string_too_short" | "too_short":
            return f"{field}: must not be empty"
        case "value_error":
            return f"{field}: {value!r} {context['error']}"
        case _:
            expected = _TYPES.get(fault["type"]) or fault["msg"].removeprefix("Input should be ")
            return f"{field}: {value!r} must be {expected}"


def _place(keys: tuple[str | int, ...]) -> str:
    """The dotted name of a field of the record."""
    place = "paper"
    for key in keys:
        if isinstance(key, int):
            place += f"[{key}]"
        else:
            place += f".{key}"
    return place
