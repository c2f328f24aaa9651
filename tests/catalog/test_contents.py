"""Where a new paper stands in the table of contents."""

import pytest

from prunebook.catalog.contents import listed_papers, with_paper
from prunebook.errors import UserError

CONTENTS = (
    "parts:\n- chapters:\n  - file: papers/a  # first\n  - file: papers/b\n  - file: concepts/x\n"
)


@pytest.mark.parametrize(
    ("later", "expected"),
    [(["a", "b"], ["new", "a", "b"]), (["b"], ["a", "new", "b"]), ([], ["a", "b", "new"])],
)
def test_place_in_the_contents(later, expected):
    text = CONTENTS.replace("  # first", "")
    result = with_paper(text, "new", later)
    assert listed_papers(result) == expected
    assert result.replace("  - file: papers/new\n", "") == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chapters: [{file: papers/a}]\n", "lists no paper as `- file: papers/<slug>`"),
        (
            "- file: papers/a\n  sections:\n  - file: concepts/b\n",
            "papers must stand in lines of their own",
        ),
        ("a: [", "cannot be read: "),
    ],
)
def test_contents_without_a_place(text, message):
    with pytest.raises(UserError, match=f"^_toc.yml: ({message})"):
        with_paper(text, "new", [])
