"""Profiles: what the file may hold, and which parameters a notebook gets."""

import pytest

from prunebook.errors import UserError
from prunebook.runs.profiles import parameters_of


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quick: [", "cannot be read"),
        ("[]", "needs a mapping of profile"),
        ("quick: {alpha: {}}", "profile 'quick' needs a mapping 'default'"),
        ("quick: {default: 3}", "quick.default must be a mapping"),
        ("quick: {default: {day: 2024-01-01}}", "quick.default.day must be a text"),
    ],
)
def test_bad_profiles(book, text, message):
    (book.root / "papers" / "profiles.yml").write_text(text)
    with pytest.raises(UserError, match=message):
        parameters_of(book.root, "quick", "alpha", {"samples"})


def test_parameters_of_a_slug_override(book):
    both = {"model_name", "samples"}
    assert parameters_of(book.root, "quick", "beta", both) == {
        "model_name": "quick-model",
        "samples": 5,
    }
    assert parameters_of(book.root, "quick", "alpha", both) == {
        "model_name": "quick-model",
        "samples": 2,
    }
    assert parameters_of(book.root, "quick", "alpha", {"samples", "other"}) == {"samples": 2}
    with pytest.raises(
        UserError,
        match=r"quick\.beta\.samples is no parameter of the notebook; allowed: model_name",
    ):
        parameters_of(book.root, "quick", "beta", {"model_name"})
