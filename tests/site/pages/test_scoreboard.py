"""The scoreboard, from claims put in by hand."""

from dataclasses import replace

import pytest
from tests.site.pages.made_up import alpha_with_outcomes

from prunebook.site.pages.scoreboard import scoreboard


@pytest.fixture
def alpha(book):
    """`alpha` as published with two claims and one table."""
    return alpha_with_outcomes(book)


def test_scoreboard(alpha):
    text = scoreboard([alpha])
    counts = "".join(f'<td class="pb-number">{count}</td>' for count in (1, 0, 0, 1))
    assert f'<tr><th scope="row"><a href="papers/alpha.html">Alpha</a></th>{counts}</tr>' in text
    assert text.count("<tr>") == 1 + 1 + 1 + 2
    assert '<a href="papers/alpha.html">Alpha</a>' in text
    assert "<td>It is &lt;better&gt;</td><td>7.26<br>" in text
    assert "no device</td></tr>" in text
    assert "<summary>Protocol</summary>model m</details>" in text
    assert "Not run:" not in text


def test_scoreboard_before_any_run(alpha):
    text = scoreboard([replace(alpha, execution=None, claims=[], results=[])])
    assert "No notebook has been run yet." in text
    assert "Not run yet: Alpha." in text
