"""Under which profile a page runs."""

import pytest

from prunebook.notebook.quick import PROFILE_VARIABLE, is_quick_run


@pytest.mark.parametrize(
    ("profile", "quick"),
    [("quick", True), ("book", False), ("", False), ("Quick", False), (None, False)],
)
def test_only_the_quick_profile_judges_nothing(monkeypatch, profile, quick):
    monkeypatch.delenv(PROFILE_VARIABLE, raising=False)
    if profile is not None:
        monkeypatch.setenv(PROFILE_VARIABLE, profile)
    assert is_quick_run() is quick
