"""Checks of the options that several methods share: one clear line for what is not allowed."""

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import UserError

_FRACTION = "a number in (0, 1), e.g. 0.2"


def check_number(name: str, value: Any, use: str = "a number >= 0") -> None:
    """Check that an option is a finite number >= 0, and no bool.

    Args:
        name: name of the option.
        value: value of the option.
        use: what the message tells the user to use instead.

    Raises:
        UserError: the value is something else.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < float("inf"):
        raise UserError(f"{name} {value!r} is not allowed; use {use}")


def is_whole(value: Any) -> bool:
    """Whether the value is a whole number, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_whole(name: str, value: Any, least: int, example: int | None = None) -> None:
    """Check that an option is a whole number, and no bool.

    Args:
        name: name of the option.
        value: value of the option.
        least: smallest value that is allowed.
        example: typical value, for the message; None for no example.

    Raises:
        UserError: the value is no whole number, or less than `least`.
    """
    if is_whole(value) and value >= least:
        return
    allowed = f"a whole number >= {least}"
    if example is not None:
        allowed += f", e.g. {example}"
    raise UserError(f"{name} {value!r} is not allowed; use {allowed}")


def check_flag(name: str, value: Any) -> None:
    """Check that an option is True or False.

    Args:
        name: name of the option.
        value: value of the option.

    Raises:
        UserError: the value is something else, e.g. 1.
    """
    if not isinstance(value, bool):
        raise UserError(f"{name} {value!r} is not allowed; use True or False")


def check_choices(method: Any, name: str, allowed: Mapping[str, Sequence[str]]) -> None:
    """Check that each option of a method is one of a few values.

    Args:
        method: object that has the options as attributes.
        name: name of the method, for the message.
        allowed: name of each option -> its allowed values.

    Raises:
        UserError: an option has another value.
    """
    for option, values in allowed.items():
        value = getattr(method, option)
        if value not in values:
            choices = " or ".join(map(repr, values))
            raise UserError(f"{option} {value!r} is not allowed for {name}; use {choices}")


def check_one_of(method: Any, *options: str) -> None:
    """Check that exactly one of several options of a method is given.

    Args:
        method: object that has the options as attributes; one that is not given is None.
        options: names of the options.

    Raises:
        UserError: none of them is given, or more than one.
    """
    values = {option: getattr(method, option) for option in options}
    if sum(value is not None for value in values.values()) != 1:
        pairs = ", ".join(f"{option}={value!r}" for option, value in values.items())
        raise UserError(f"give one of {', '.join(options)}, not {pairs}")


def check_share(name: str, value: Any, use: str) -> None:
    """Check that an option is a number in [0, 1].

    Args:
        name: name of the option.
        value: value of the option.
        use: what the message tells the user to use instead.

    Raises:
        UserError: the value is something else.
    """
    check_number(name, value, use)
    if value > 1:
        raise UserError(f"{name} {value!r} is not allowed; use {use}")


def check_fraction(name: str, value: Any, purpose: str = "") -> None:
    """Check that an option is a number in (0, 1).

    Args:
        name: name of the option.
        value: value of the option.
        purpose: words for the message after "not allowed", e.g. " for whole blocks".

    Raises:
        UserError: the value is something else.
    """
    check_number(name, value, _FRACTION)
    if not 0 < value < 1:
        raise UserError(f"{name} {value} is not allowed{purpose}; use {_FRACTION}")


def describe_blocks(remove_blocks: int | None, sparsity: float | None) -> str:
    """What a report calls the pattern of a method that removes whole blocks.

    Args:
        remove_blocks: number of blocks to remove; None where `sparsity` is given.
        sparsity: fraction of the blocks to remove; None where `remove_blocks` is given.
    """
    if remove_blocks is None:
        return f"{sparsity} of the blocks"
    return f"{remove_blocks} blocks"


def check_blocks(remove_blocks: Any, sparsity: Any) -> None:
    """Check the size of a cut that removes whole blocks.

    Args:
        remove_blocks: number of blocks to remove, at least 1; None where `sparsity` is given.
        sparsity: fraction of the blocks to remove, in (0, 1); None where `remove_blocks` is given.

    Raises:
        UserError: both are given, or neither, or the one is out of its range.
    """
    if (remove_blocks is None) == (sparsity is None):
        raise UserError(
            "give either remove_blocks, e.g. 6, or sparsity, the fraction of the blocks, e.g. 0.2"
        )
    if remove_blocks is None:
        check_fraction("sparsity", sparsity, " for whole blocks")
    else:
        check_whole("remove_blocks", remove_blocks, 1, example=6)
