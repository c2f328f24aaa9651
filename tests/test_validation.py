"""Checks of options that methods share: what passes, and the one line for what does not."""

import pytest

from prunebook.errors import UserError
from prunebook.validation import (
    check_blocks,
    check_choices,
    check_flag,
    check_fraction,
    check_number,
    check_one_of,
    check_share,
    check_whole,
    describe_blocks,
)


def test_what_is_allowed_passes():
    for value in (0, 0.0, 3, 1e300):
        check_number("x", value)
    check_whole("x", 1, 1)
    check_whole("x", 0, 0)
    for value in (True, False):
        check_flag("x", value)


@pytest.mark.parametrize("value", [-1, -1e-9, float("nan"), float("inf"), True, "1", None])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(UserError, match=r"^damping .* is not allowed; use a fraction$") as caught:
        check_number("damping", value, "a fraction")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [0, 1.0, True, None])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(
        UserError, match=r"^shots .* is not allowed; use a whole number >= 1, e\.g\. 5$"
    ):
        check_whole("shots", value, 1, example=5)


@pytest.mark.parametrize("value", [0, 1, None, "True"])
def test_what_is_no_flag_is_refused(value):
    with pytest.raises(UserError, match=r"^exact .* is not allowed; use True or False$"):
        check_flag("exact", value)


class Given:
    def __init__(self, **options):
        self.__dict__.update(options)


def test_one_of_two_options():
    check_one_of(Given(a=0.2, b=None), "a", "b")
    for options, given in (
        ({"a": None, "b": None}, "a=None, b=None"),
        ({"a": 1, "b": 2}, "a=1, b=2"),
    ):
        with pytest.raises(UserError, match=f"^give one of a, b, not {given}$"):
            check_one_of(Given(**options), "a", "b")


def test_choices():
    check_choices(Given(kind="x"), "method", {"kind": ("x", "y")})
    with pytest.raises(UserError, match=r"^kind 'z' is not allowed for method; use 'x' or 'y'$"):
        check_choices(Given(kind="z"), "method", {"kind": ("x", "y")})


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.2, float("nan"), True, None, "0.2"])
def test_what_is_no_fraction_is_refused(value):
    check_fraction("share", 0.5)
    with pytest.raises(
        UserError, match=r"^share .* is not allowed.*; use a number in \(0, 1\), e\.g\. 0\.2$"
    ):
        check_fraction("share", value)


def test_the_size_of_a_cut_of_whole_blocks():
    check_blocks(6, None)
    check_blocks(None, 0.2)
    for blocks, sparsity, message in (
        (None, None, r"give either remove_blocks, e\.g\. 6, or sparsity, .*, e\.g\. 0\.2"),
        (6, 0.2, r"give either remove_blocks, e\.g\. 6, or sparsity, .*, e\.g\. 0\.2"),
        (0, None, r"remove_blocks 0 is not allowed; use a whole number >= 1, e\.g\. 6"),
        (None, 1.0, r"sparsity 1\.0 is not allowed for whole blocks; use a number in \(0, 1\), .*"),
    ):
        with pytest.raises(UserError, match=f"^{message}$"):
            check_blocks(blocks, sparsity)
    assert describe_blocks(6, None) == "6 blocks"
    assert describe_blocks(None, 0.2) == "0.2 of the blocks"


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, None, "0.2"])
def test_what_is_no_share_is_refused(value):
    for allowed in (0, 0.5, 1):
        check_share("depth", allowed, "a share")
    with pytest.raises(UserError, match=r"^depth .* is not allowed; use a share$"):
        check_share("depth", value, "a share")
