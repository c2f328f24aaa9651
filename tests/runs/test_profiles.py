"""Profiles: what the file may hold, and which parameters a notebook gets."""

import pytest

from prunebook.errors import UserError
from prunebook.runs.profiles import load_profiles, parameters_of


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quick: [", "cannot be read"),
        ("[]", "needs a mapping of profile"),
        ("quick: {alpha: {}}", "profile 'quick' needs a mapping 'default'"),
        ("quick: {default: 3}", "quick.default must be a mapping"),
        ("quick: {default: {day: 2024-01-01}}", "quick.default.day must be a text"),
        ("{a: {default: {}}, b: {like: c, default: {}}}", "b.like: 'c' is no complete profile"),
        ("{a: {like: a, default: {}}, b: {default: {}}}", "'a' is no complete .* allowed: b$"),
        ("{a: {like: [b], default: {}}, b: {default: {}}}", r"a.like: \['b'\] is no complete"),
        ("{a: {like: , default: {}}}", "a.like: None is no complete profile; allowed: none, as"),
        ("{2: {default: {}}}", "profile 2: a name must be text; put it in quotes"),
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


def test_a_profile_like_another_has_its_values_beneath_its_own(book):
    (book.root / "papers" / "profiles.yml").write_text(
        "second: {like: book, default: {model: n}, alpha: {windows: 3}}\n"
        "book: {default: {model: m, windows: 9}, alpha: {samples: 4}, beta: {model: encoder}}\n"
    )
    names = {"model", "windows", "samples"}
    second = {name: parameters_of(book.root, "second", name, names) for name in ("alpha", "beta")}
    assert second["alpha"] == {"model": "n", "windows": 3, "samples": 4}
    # What a notebook needs for itself goes before the model of the profile.
    assert second["beta"] == {"model": "encoder", "windows": 9}
    assert parameters_of(book.root, "book", "alpha", names)["model"] == "m"
    assert list(load_profiles(book.root)) == ["second", "book"]
