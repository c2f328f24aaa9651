"""Checks of the options that several methods have: one clear line for what is not allowed."""

from collections.abc import Mapping, Sequence

from .errors import UserError


def check_number(name: str, value, use: str = "a number >= 0") -> None:
    """Raise a `UserError` that says to `use` something else unless `value` is a finite number >= 0,
    and no bool."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf"):
        raise UserError(f"{name} {value!r} is not allowed; use {use}")


def is_whole(value) -> bool:
    """Whether `value` is a whole number, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_whole(name: str, value, least: int, example: str = "") -> None:
    """Raise a `UserError` unless `value` is a whole number >= `least`, and no bool."""
    if not is_whole(value) or value < least:
        raise UserError(f"{name} {value!r} is not allowed; use a whole number >= {least}{example}")


def check_flag(name: str, value) -> None:
    """Raise a `UserError` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise UserError(f"{name} {value!r} is not allowed; use True or False")


def check_choices(method, name: str, allowed: Mapping[str, Sequence[str]]) -> None:
    """Raise a `UserError` unless each option of `method` (called `name`) is one of its `allowed`
    values."""
    for option, values in allowed.items():
        if (value := getattr(method, option)) not in values:
            raise UserError(
                f"{option} {value!r} is not allowed for {name}; use "
                f"{' or '.join(map(repr, values))}"
            )


def describe_blocks(blocks, sparsity) -> str:
    """What a report calls the pattern of a method that removes whole blocks."""
    return f"{blocks} blocks" if blocks is not None else f"{sparsity} of the blocks"


def check_one_of(method, *options: str) -> None:
    """Raise a `UserError` unless exactly one of the `options` of `method` is given."""
    if sum(getattr(method, option) is not None for option in options) != 1:
        given = ", ".join(f"{option}={getattr(method, option)!r}" for option in options)
        raise UserError(f"give one of {', '.join(options)}, not {given}")


def check_share(name: str, value, use: str) -> None:
    """Raise a `UserError` that says to `use` something else unless `value` is a number in [0,
    1]."""
    check_number(name, value, use)
    if value > 1:
        raise UserError(f"{name} {value!r} is not allowed; use {use}")


def check_fraction(name: str, value, of: str = "") -> None:
    """Raise a `UserError` unless `value` is a number in (0, 1)."""
    check_number(name, value, "a number in (0, 1), as 0.2")
    if not 0 < value < 1:
        raise UserError(f"{name} {value} is not allowed{of}; use a number in (0, 1), as 0.2")


def check_blocks(blocks, sparsity) -> None:
    """Raise a `UserError` unless one of the two is given: a whole number of 1 or more, or a
    fraction in (0, 1)."""
    if (blocks is None) == (sparsity is None):
        raise UserError("give either blocks, as 6, or sparsity, the fraction of the blocks, as 0.2")
    if blocks is not None:
        check_whole("blocks", blocks, 1, ", as 6")
        return
    check_fraction("sparsity", sparsity, " for whole blocks")
