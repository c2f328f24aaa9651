"""The source that `show_source` shows is the library's own, whole and findable."""

import functools
import inspect
from pathlib import Path

import pytest

from prunebook import errors
from prunebook.errors import UserError
from prunebook.notebook import gaps, judging, results, source
from prunebook.notebook.source import show_source


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(source, "display_bundle", bundles.append)
    return bundles


def test_a_class_with_its_place(shown):
    show_source(errors.UserError)
    markdown = shown[0]["text/markdown"]
    assert markdown.startswith(
        "**`prunebook.errors.UserError`** (prunebook/errors.py, lines 4 to 5)\n\n```python\n"
    )
    source = Path(errors.__file__).read_text()
    assert markdown.endswith("\n```")
    assert (
        source[source.index("class UserError") : source.index("def first_line")].strip() in markdown
    )


def test_a_method_is_dedented(shown):
    show_source(judging.Claim.to_dict)
    assert "```python\ndef to_dict(self)" in shown[0]["text/markdown"]
    assert "\n    return asdict(self)\n```" in shown[0]["text/markdown"]
    assert "`prunebook.notebook.judging.Claim.to_dict`" in shown[0]["text/markdown"]


def test_through_a_wrapper(shown):
    show_source(results.library_commit)
    show_source(functools.partial(gaps.gap, [[0, 1]]))
    assert "@functools.cache\ndef library_commit()" in shown[0]["text/markdown"]
    assert "def gap(\n    lower: ArrayLike," in shown[1]["text/markdown"]


def test_the_fence_is_longer_than_any_in_the_source(shown, monkeypatch):
    monkeypatch.setattr(
        inspect, "getsourcelines", lambda _: (["def f():\n", '    """```x```"""\n'], 1)
    )
    show_source(gaps.gap)
    assert "\n\n````python\n" in shown[0]["text/markdown"]
    assert shown[0]["text/markdown"].endswith("\n````")


@pytest.mark.parametrize("obj", [len, Path, "wanda", 3, judging, test_a_method_is_dedented])
def test_what_is_not_the_librarys(shown, obj):
    with pytest.raises(
        UserError, match=r"show_source: .* is no function, class or method of prunebook"
    ):
        show_source(obj)
    assert shown == []
