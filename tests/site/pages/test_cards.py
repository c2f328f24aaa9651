"""The card under a paper's title."""

import re
from dataclasses import replace

import nbformat
import pytest
from tests.site.pages.made_up import ADDRESS, CLAIM, alpha_with_outcomes

from prunebook.runs.records import run_of
from prunebook.site.pages.cards import card, claim_badges, escape
from prunebook.site.published import read_published


@pytest.fixture
def alpha(book):
    """`alpha` as published with two claims and one table."""
    return alpha_with_outcomes(book)


def test_escape_leaves_no_markup():
    assert escape("a*b* $x$\n`c` <d> {e}`f` | g") == r"a\*b\* \$x\$ \`c\` \<d\> \{e\}\`f\` \| g"


def test_card(alpha):
    text = card(alpha, ADDRESS)
    for expected in (
        ":Authors: A\\. Author\\, B\\. Bee\n",
        "{bdg-primary}`ICLR 2024` [arXiv 2306.11695](https://arxiv.org/abs/2306.11695)",
        "[OpenReview](<https://openreview.net/forum?id=PxoFut3dWW>)",
        ":Code: [official](<https://example.org/code>) (MIT)\n",
        ":Links: [Blog](<https://example.org/blog>)\n",
        "{bdg-ref-primary-line}`Wanda <criteria-wanda>` {bdg-ref-primary-line}`Other "
        "<criteria-other>`",
        "`Sparsity <budget-sparsity>` (layer)",
        ':Claims: <span class="pb-verdict pb-holds"><span aria-hidden="true">✓</span> holds here: '
        "1</span> <span class=",
        '<span class="pb-verdict pb-not-testable"><span aria-hidden="true">○</span> not '
        "testable: 1</span>\n",
        ":Notebook: [Open in "
        "Colab](<https://colab.research.google.com/github/some/book/blob/colab/alpha.ipynb>) · ",
        ":Executed: profile ci\\, 2026\\-11\\-23\\, 12 s\\, one CPU\\, torch 2\\.13\\.0\\, "
        "commit abc\n",
        "{ref}`Challenges <note-alpha>`",
        "{download}`Download </_notebooks/alpha.ipynb>`",
        "{doc}`Scoreboard </scoreboard>`",
        "What alpha does\\, \\< 1\\% of it\\.",
    ):
        assert expected in text
    assert ":Runs in:" not in text
    assert "{note}" not in text
    assert "pb-fails" not in text


def test_card_of_a_bare_record(book):
    book.add(
        "alpha",
        arxiv=None,
        openreview=None,
        code=None,
        links=[],
        method=None,
        venue={"name": "ICML", "year": 2023, "kind": "workshop"},
        runs_in=[{"runtime": "vLLM", "status": "removed", "date": "2026-11-23", "note": "PR #3"}],
    )
    path = book.root / "papers" / "alpha.ipynb"
    content = nbformat.read(path, 4)
    content.cells[0].source = content.cells[0].source.replace("'2026-11-23'", "2026-11-23")
    nbformat.write(content, path)
    text = card(read_published(book.root)[0], ADDRESS)
    assert ":Paper: {bdg-primary}`ICML 2023 (workshop)`\n" in text
    assert ":Code: none published\n" in text
    assert ":Runs in: \n  - vLLM {bdg-warning}`removed` 2026-11-23: PR \\#3\n" in text
    assert ":Links:" not in text
    assert ":Claims: {bdg-secondary-line}`not run yet`\n" in text
    assert "has not been run yet" in text


def test_card_shows_what_the_list_said_and_why_it_changed(book):
    changed = {
        "field": "tags.criteria",
        "listed": "Hessian <b>",
        "reason": "first order.",
        "source": "https://x.org/t",
    }
    venue = {"field": "venue", "listed": "Arxiv'24", "reason": "accepted since"}
    book.add("alpha", corrections=[changed, venue])
    text = card(read_published(book.root)[0], ADDRESS)
    assert "`Other <criteria-other>` *(listed as: Hessian \\<b\\>)*\n" in text
    assert (
        "\n  - criteria, listed as “Hessian \\<b\\>”: first order\\. [source](<https://x.org/t>)\n"
        in text
    )
    assert "\n  - venue, listed as “Arxiv\\'24”: accepted since\n" in text
    assert text.count("listed as:") == 1


def test_card_says_when_outputs_are_old_or_missing(alpha):
    old = replace(alpha, current=False)
    missing = replace(alpha, execution=None)
    assert "from before the last change" in card(old, ADDRESS)
    assert "has not been run for this build" in card(missing, ADDRESS)


def test_card_counts_the_papers_own_claims_and_the_others_apart(alpha):
    ours = CLAIM | {"origin": "ours", "verdict": "tie"}
    text = card(replace(alpha, claims=[CLAIM, ours]), ADDRESS)
    claims, beyond = (re.search(f":{name}: (.*)", text)[1] for name in ("Claims", "Asked beyond"))
    assert re.sub("<[^>]*>", "", claims) == "✓ holds here: 1"
    assert re.sub("<[^>]*>", "", beyond) == "≈ tie: 1"


def test_card_names_the_recorded_runs_and_what_has_changed(alpha):
    run = replace(run_of("alpha", "Alpha", "book", alpha.results, []), file="a.json")
    text = card(replace(alpha, runs=(run,), changes={"a.json": "x: 2, was 1"}), ADDRESS)
    assert ":Verdicts: Recorded on 2026\\-11\\-23 \\(profile book\\, one CPU" in text
    assert "Changed since it was recorded\\: x\\: 2\\, was 1\\." in text
    own = replace(run, file="")
    assert ":Verdicts:" not in card(replace(alpha, runs=(own,)), ADDRESS)
    two = card(replace(alpha, runs=(own, run, run)), ADDRESS)
    assert two.count("\n  - Recorded on") == 2


def test_a_badge_for_each_verdict_in_the_order_of_all_pages():
    badges = claim_badges([{"verdict": word} for word in ("fails", "holds", "fails", "tie")])
    words = [
        text.removesuffix("</span>").split("</span> ")[1] for text in badges.split(" <span class=")
    ]
    assert words == [
        "holds here: 1",
        "tie: 1",
        "does not hold here: 2",
    ]
    assert claim_badges([]) == ""
