"""Cards, scoreboard and the assembled sources, from notebooks with outputs put in by hand."""

import json

import nbformat
import pytest
import yaml
from tests.small_book import notebook, write_sources

from prunebook.catalog import Address, read_address, read_papers
from prunebook.errors import UserError
from prunebook.notebook.claims import CLAIM_MIME, RESULTS_MIME
from prunebook.runs.executed import Execution
from prunebook.site import published as published_module
from prunebook.site.assemble import assemble, page
from prunebook.site.pages.cards import card, claim_badges, escape
from prunebook.site.pages.scoreboard import scoreboard
from prunebook.site.pages.text import name_papers
from prunebook.site.published import Published, read_published

ADDRESS = Address("https://book.example.org/b/", "https://github.com/some/book", "main")
CLAIM = {
    "key": "k",
    "statement": "It is <better>",
    "paper": "7.26",
    "source": "Table 2",
    "ours": "30.5",
    "verdict": "holds",
    "protocol": {"model": "m"},
    "reason": None,
    "gap": None,
}
NOT_TESTABLE = {
    **CLAIM,
    "verdict": "not_testable",
    "ours": None,
    "reason": "no device",
    "protocol": {},
}


def results(*rows, model="m"):
    protocol = {"model": model, "device": "one CPU"}
    versions = {"torch": "2.13.0"}
    return {
        "rows": list(rows),
        "protocol": protocol,
        "versions": versions,
        "date": "2026-11-23",
        "commit": "abc",
    }


@pytest.fixture
def alpha(book):
    """`alpha` as published with two claims and one table."""
    book.add("alpha", "1")
    (paper,) = read_papers(book.root)
    execution = Execution(paper.path, "key", "ci", 12.3, "2026-11-23", {})
    table = results(
        {"label": "dense", "seed": None, "perplexity": 20.0, "sparsity": 0.0},
        {"label": "Tiny", "seed": 0, "perplexity": 30.0, "sparsity": 0.5, "parameters": 7},
        {"label": "Tiny", "seed": 1, "perplexity": 31.0, "sparsity": 0.5, "parameters": 7},
    )
    return Published(paper, notebook("alpha", "1"), execution, True, [CLAIM, NOT_TESTABLE], [table])


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
        ':Claims: <span class="pb-verdict pb-holds"><span aria-hidden="true">✓</span> holds: '
        "1</span> <span class=",
        '<span class="pb-verdict pb-not-testable"><span aria-hidden="true">○</span> not '
        "testable here: 1</span>\n",
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
    old = Published(alpha.paper, alpha.notebook, alpha.execution, False, [], [])
    missing = Published(alpha.paper, alpha.notebook, None, False, [], [])
    assert "from before the last change" in card(old, ADDRESS)
    assert "has not been run for this build" in card(missing, ADDRESS)


def test_a_badge_for_each_verdict_in_the_order_of_all_pages():
    badges = claim_badges([{"verdict": word} for word in ("fails", "holds", "fails", "tie")])
    words = [
        text.removesuffix("</span>").split("</span> ")[1] for text in badges.split(" <span class=")
    ]
    assert words == [
        "holds: 1",
        "tie (within two standard errors): 1",
        "does not hold at this scale: 2",
    ]
    assert claim_badges([]) == ""


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
    text = scoreboard([Published(alpha.paper, alpha.notebook, None, False, [], [])])
    assert "No notebook has been run yet." in text
    assert "Not run yet: Alpha." in text


def test_page(alpha):
    v4 = nbformat.v4
    html = {"text/html": "<b>x</b>", "text/plain": "x"}
    cell = alpha.notebook.cells[3]
    cell.outputs = [
        v4.new_output("stream", name="stderr", text="50%|####"),
        v4.new_output("stream", name="stdout", text="kept"),
        v4.new_output("display_data", {CLAIM_MIME: CLAIM, **html}),
        v4.new_output("display_data", {RESULTS_MIME: {}, **html}),
        v4.new_output(
            "display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "w"}
        ),
    ]
    cell.metadata["papermill"] = {"duration": 1}
    alpha.notebook.metadata["papermill"] = {"input_path": "/somewhere"}
    before = json.dumps(alpha.notebook)
    result = page(alpha, ADDRESS)
    assert [cell.cell_type for cell in result.cells][:3] == ["markdown"] * 3
    assert result.cells[0].source == "# Alpha"
    assert result.cells[1].source == card(alpha, ADDRESS)
    kept = result.cells[3].outputs
    assert [output.get("text") or dict(output.data) for output in kept] == ["kept", html, html]
    assert "papermill" not in json.dumps(result)
    assert json.dumps(alpha.notebook) == before
    nbformat.validate(result)


def test_assemble(book, alpha):
    write_sources(book.root)
    site = assemble(book.root, [alpha])
    assert site == book.root / "_build" / "site"
    index = (site / "index.md").read_text()
    assert '<table class="pb-papers"' in index
    assert 'href="papers/alpha.html"' in index
    assert "<!-- papers -->" not in index
    assert "(note-alpha)=" in (site / "challenge/challenge.md").read_text()
    assert (site / "_static" / "prunebook.css").is_file()
    assert (site / "_notebooks" / "alpha.ipynb").read_bytes() == alpha.paper.path.read_bytes()
    assert nbformat.read(site / "papers" / "alpha.ipynb", 4).cells[1].source == card(
        alpha, read_address(book.root)
    )
    (site / "left-over").write_text("")
    assemble(book.root, [alpha])
    assert not (site / "left-over").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "_config.yml").unlink(), "_config.yml is missing"),
        (lambda root: (root / "index.md").write_text("# No marker"), "once, has it 0 times"),
        (lambda root: (root / "challenge/challenge.md").write_text("#"), "needs the markers"),
    ],
)
def test_a_bad_source_leaves_the_site_as_it_was(book, alpha, change, message):
    write_sources(book.root)
    before = sorted(path.name for path in assemble(book.root, [alpha]).iterdir())
    change(book.root)
    with pytest.raises(UserError, match=message):
        assemble(book.root, [alpha])
    assert sorted(path.name for path in (book.root / "_build" / "site").iterdir()) == before


def test_published_reads_the_records_in_the_outputs(book, monkeypatch):
    book.add("alpha", "1")
    executed = notebook("alpha", "1")
    executed.cells[4].outputs = [
        nbformat.v4.new_output("display_data", {CLAIM_MIME: CLAIM, "text/plain": ""}),
        nbformat.v4.new_output("display_data", {"image/png": "aGk=", "text/plain": ""}),
        nbformat.v4.new_output("display_data", {RESULTS_MIME: results({"a": 1}), "text/plain": ""}),
    ]
    path = book.root / "executed.ipynb"
    nbformat.write(executed, path)
    execution = Execution(path, "key", "ci", 1.0, "2026-11-23", {})
    monkeypatch.setattr(published_module, "best_execution", lambda root, paper: (execution, True))
    (found,) = read_published(book.root)
    assert (found.claims, found.results, found.images) == ([CLAIM], [results({"a": 1})], 1)
    assert (found.execution, found.current) == (execution, True)


def test_papers_stand_in_the_contents_under_their_short_names(book):
    book.add("alpha", short="Al: pha")
    contents = "root: index\nparts:\n- caption: Papers\n  chapters:\n  - file: papers/alpha\n  - file: papers/other\n"
    assert yaml.safe_load(name_papers(contents, read_papers(book.root))) == {
        "root": "index",
        "parts": [
            {
                "caption": "Papers",
                "chapters": [
                    {"file": "papers/alpha", "title": "Al: pha"},
                    {"file": "papers/other"},
                ],
            }
        ],
    }
