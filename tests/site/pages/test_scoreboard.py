"""The scoreboard, from claims put in by hand."""

import re
from dataclasses import replace

import pytest
from tests.site.pages.made_up import CLAIM, alpha_with_outcomes

from prunebook.site.pages.scoreboard import scoreboard


@pytest.fixture
def alpha(book):
    """`alpha` as published with two claims and one table."""
    return alpha_with_outcomes(book)


def section(text: str, heading: str) -> str:
    """The text below a heading of the page."""
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_scoreboard(alpha):
    text = scoreboard([alpha])
    counts = "".join(f'<td class="pb-number">{count}</td>' for count in (1, 1))
    assert f'<tr><th scope="row"><a href="papers/alpha.html">Alpha</a></th>{counts}<td>' in text
    assert text.count("<tr data-paper=") == 2
    assert '<a href="papers/alpha.html">Alpha</a>' in text
    assert "<td>It is &lt;better&gt;</td><td>7.26<br>" in text
    assert "no device</td></tr>" in text
    assert "What we asked beyond" not in text
    assert "Not run:" not in text


def test_claims_beyond_the_paper_have_a_table_of_their_own(alpha):
    ours = CLAIM | {"key": "b", "origin": "ours", "verdict": "undertrained"}
    text = scoreboard([replace(alpha, claims=[CLAIM, ours])])
    assert "undertrained" not in section(text, "By paper")
    assert 'data-origin="paper"' in section(text, "Claims of the papers")
    own = section(text, "Claims of the papers").partition("</form>")[2]
    assert "not given its training" not in own
    beyond = section(text, "What we asked beyond")
    assert 'data-verdict="undertrained" data-origin="ours"' in beyond
    assert "not given its training: 1" in beyond
    # The badges above both tables count the paper's own.
    assert "not given its training: 1" not in text.partition("## By paper")[0]


def test_the_legend_and_the_filter_have_what_the_tables_have(alpha):
    text = scoreboard([alpha])
    legend = text.partition('<dl class="pb-legend">')[2].partition("</dl>")[0]
    assert re.findall("</span> ([^<]*)</span></dt>", legend) == ["holds here", "not testable"]
    form = text.partition("<form")[2].partition("</form>")[0]
    assert form.startswith(' class="pb-tools pb-filter"')
    assert " hidden>" in form
    assert re.findall('value="([^"]+)"', form) == ["alpha", "holds", "not_testable", "paper"]


def test_how_many_tests_would_hold_by_chance(alpha):
    gap = {"mean": 0.1, "margin": None, "half_width": 0.2}
    claims = [CLAIM | {"key": str(number), "gap": gap} for number in range(80)]
    claims += [CLAIM | {"key": "equal", "gap": gap | {"margin": 0.1}}]
    claims += [CLAIM | {"key": "earlier", "gap": {"mean": 0.1, "standard_error": 0.1}}]
    claims += [CLAIM | {"key": "quick", "gap": gap, "verdict": "not_judged"}]
    claims += [CLAIM | {"key": "untested", "gap": gap, "verdict": "not_testable", "reason": "few"}]
    text = scoreboard([replace(alpha, claims=claims)])
    assert (
        "80 verdicts rest on the present rule's test of whether one loss lies below another" in text
    )
    assert "about 2 of them would still hold by chance" in text


def test_a_claim_tells_only_what_differs_from_its_papers_protocol(alpha):
    protocol = alpha.results[0]["protocol"]
    same = CLAIM | {"protocol": protocol}
    other = CLAIM | {"protocol": protocol | {"windows": 9}, "recorded": "Recorded <1>."}
    text = scoreboard([replace(alpha, claims=[same, other])])
    claims = section(text, "Claims of the papers")
    assert claims.count("<details") == 1
    assert "Protocol of this claim</summary>windows 9<br>Recorded &lt;1&gt;.</details>" in claims
    by_paper = section(text, "By paper")
    assert "<summary>Protocol</summary>model m · device one CPU</details>" in by_paper


def test_the_verdicts_of_all_runs_stand_beside_the_one_that_counts(alpha):
    run = {"profile": "book", "device": "CPU", "model": "m", "windows": 32, "version": 2}
    verdicts = [run | {"verdict": "holds"}, run | {"profile": "ci", "verdict": "fails"}]
    text = scoreboard([replace(alpha, claims=[CLAIM | {"verdicts": verdicts}])])
    assert (
        '<div class="pb-source">book, CPU, 32 windows: holds here<br>ci, CPU, 32 windows: does '
        "not hold here</div>"
    ) in text
    agreeing = [verdicts[0], verdicts[0] | {"profile": "full"}]
    text = scoreboard([replace(alpha, claims=[CLAIM | {"verdicts": agreeing}])])
    assert "<summary>2 runs agree</summary>book, CPU, 32 windows: holds here<br>full" in text
    other = [verdicts[0], verdicts[0] | {"profile": "second", "model": "n"}]
    text = scoreboard([replace(alpha, claims=[CLAIM | {"verdicts": other}])])
    assert "<summary>holds on 2 of 2 models</summary>book, CPU, m, 32 windows: holds here" in text
    other[1]["verdict"] = "tie"
    text = scoreboard([replace(alpha, claims=[CLAIM | {"verdicts": other}])])
    assert '<div class="pb-source">holds on 1 of 2 models<br>book, CPU, m, 32 windows' in text
    alone = scoreboard([replace(alpha, claims=[CLAIM | {"verdicts": verdicts[:1]}])])
    assert "32 windows" not in alone


def test_the_page_on_the_test_is_linked_where_it_is(alpha):
    assert "(concepts/other_concepts.md)" in scoreboard([alpha], ["concepts/other_concepts"])
    assert "other_concepts" not in scoreboard([alpha])


def test_scoreboard_before_any_run(alpha):
    text = scoreboard([replace(alpha, execution=None, claims=[], results=[])])
    assert "No notebook has been run yet." in text
    assert "Not run yet: Alpha." in text
