"""Errors that a user causes: one line each."""

import pytest

from prunebook.errors import UserError, first_line, not_finite


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (OSError("\n  late \n"), "late"),
        (KeyError("key"), "'key'"),
        (RuntimeError(), "RuntimeError"),
        (ValueError(" \n "), "ValueError"),
    ],
)
def test_the_first_line_of_an_error(error, line):
    assert first_line(error) == line


def test_numbers_that_are_not_finite_are_named():
    error = not_finite("activations")
    assert isinstance(error, UserError)
    assert isinstance(error, ValueError)
    assert str(error) == (
        "calibration activations hold NaN or infinity; use a wider dtype such as float32, or other "
        "calibration text"
    )
