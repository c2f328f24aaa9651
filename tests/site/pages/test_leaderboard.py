"""The leaderboard, from tables put in by hand."""

import re
from dataclasses import replace

from tests.small_book import published

from prunebook.catalog import read_papers
from prunebook.runs.executed import Execution
from prunebook.runs.records import run_of
from prunebook.site.pages.leaderboard import leaderboard

DENSE = {"method": "dense", "label": "dense", "seed": None, "sparsity": 0.0, "perplexity": 20.0}
DRAWS = [
    {
        "method": "tiny",
        "label": "Tiny",
        "pattern": "50 %",
        "seed": 0,
        "sparsity": 0.5,
        "perplexity": 30.0,
        "size": 7,
    },
    {
        "method": "tiny",
        "label": "Tiny",
        "pattern": "50 %",
        "seed": 1,
        "sparsity": 0.5,
        "perplexity": 31.0,
        "size": 7,
    },
]
ALPHA = '<a href="papers/alpha.html">Alpha</a>'
OTHER = {
    "method": "big",
    "label": "Big",
    "pattern": "70 %",
    "seed": 0,
    "sparsity": 0.7,
    "perplexity": 25.0,
}


def result(*rows, **protocol):
    shared = {"model": "m", "evaluation": "4 windows", "device": "one CPU"}
    return {
        "rows": list(rows),
        "protocol": shared | protocol,
        "versions": {},
        "date": "2026-11-23",
        "commit": "abc",
    }


def alpha(book, *results):
    """`alpha` as published with these tables."""
    if not (book.root / "papers" / "alpha.ipynb").exists():
        book.add("alpha", "1")
    (paper,) = read_papers(book.root)
    execution = Execution(paper.path, "key", "ci", 1.0, "2026-11-23", {})
    return published(paper, execution, results=list(results))


def table(text):
    """The cells of each row of the page's first table."""
    body = text.partition("<tbody>")[2].partition("</tbody>")[0]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", body)]


def recorded(slug, *results, version=2, short=None):
    """A recorded run of a paper with these tables."""
    run = run_of(slug, short or slug.title(), "ci", results, [])
    return replace(run, version=version, file=f"{slug}.json")


def test_draws_are_averaged_with_an_interval_and_rows_go_by_level(book):
    text, _ = leaderboard([alpha(book, result(OTHER, *DRAWS, DENSE))], [])
    assert [row[:7] for row in table(text)] == [
        [ALPHA, "dense", "–", "0.00%", "20.00", "–", "1.000"],
        [ALPHA, "Tiny", "50 %", "50.00%", "30.50", "6.35", "1.525"],
        [ALPHA, "Big", "70 %", "70.00%", "25.00", "–", "1.250"],
    ]
    heads = re.findall("<th[^>]*>(.*?)</th>", text)
    tiny = dict(zip(heads, table(text)[1], strict=True))
    assert tiny["Seeds"] == "2"
    assert tiny["Size"] == "7"
    assert (tiny["Device"], tiny["Date"], tiny["Commit"]) == ("one CPU", "2026-11-23", "abc")


def test_the_dense_model_stands_once_for_all_papers(book):
    text, _ = leaderboard([alpha(book, result(DENSE))], [recorded("beta", result(DENSE))])
    assert [row[0] for row in table(text)] == ["all"]


def test_a_row_that_two_notebooks_measured_stands_once(book):
    run = recorded("beta", result(OTHER), short="Be <ta")
    text, _ = leaderboard([alpha(book, result(OTHER))], [run])
    assert [row[0] for row in table(text)] == [f"{ALPHA}, Be &lt;ta"]


def test_rows_of_another_text_or_dense_model_have_a_section_of_their_own(book):
    other_text = result(DENSE, evaluation="9 windows")
    other_model = result(DENSE | {"perplexity": 21.0})
    gpu = recorded("beta", result(OTHER, device="GPU"), other_text, other_model)
    text, _ = leaderboard([alpha(book, result(DENSE))], [gpu])
    assert text.count('<table class="pb-results">') == 3
    assert [row[1] for row in table(text)] == ["dense", "Big"]
    assert "GPU" in table(text)[1]


def test_the_headings_of_sections_differ(book):
    texts = [result(DENSE | {"perplexity": 20.0 + index}) for index in range(2)]
    others = [result(DENSE, dtype=dtype) for dtype in ("float32", "bfloat16")]
    others += [result(DENSE, dtype="float32", evaluation_precision="fast")]
    alone = result(DENSE, evaluation="9 windows")
    text, _ = leaderboard([alpha(book, *texts, *others, alone)], [])
    headings = re.findall("^## (.*)$", text.replace("\\", ""), re.MULTILINE)
    assert sorted(headings) == [
        "m, 4 windows, bfloat16",
        "m, 4 windows, dtype not named, evaluation precision not named, dense 20.00",
        "m, 4 windows, dtype not named, evaluation precision not named, dense 21.00",
        "m, 4 windows, float32, evaluation precision not named",
        "m, 4 windows, float32, fast",
        "m, 9 windows",
    ]


def test_the_figure_is_drawn_from_the_rows_and_always_the_same(book):
    paper = alpha(book, result(DENSE, *DRAWS, OTHER))
    (text, figures), again = leaderboard([paper], []), leaderboard([paper], [])[1]
    assert list(figures) == ["leaderboard-1-weights.svg"]
    assert "```{figure} leaderboard-1-weights.svg" in text
    assert figures == again
    drawn = figures["leaderboard-1-weights.svg"].decode()
    assert all(f"{name}</text>" in drawn for name in ("Tiny", "Big", "dense"))
    assert leaderboard([alpha(book, result(DENSE))], [])[1] == {}


def test_structures_and_weights_have_tables_and_figures_of_their_own(book):
    dense = DENSE | {"parameters": 100}
    cut = OTHER | {"pattern": "2 blocks", "parameters": 80, "method": "cut"}
    deeper = cut | {"sparsity": 0.3, "label": "deeper", "parameters": 70}
    masked = [row | {"parameters": 100} for row in (DRAWS[0], OTHER)]
    text, figures = leaderboard([alpha(book, result(dense, cut, deeper, *masked))], [])
    assert list(figures) == ["leaderboard-1-weights.svg", "leaderboard-1-structures.svg"]
    assert b"Tiny" in figures["leaderboard-1-weights.svg"]
    assert b"Tiny" not in figures["leaderboard-1-structures.svg"]
    assert text.index("### Weights") < text.index("### Blocks, heads")
    assert text.count('<table class="pb-results">') == 2


def test_rows_without_perplexity_have_a_table_and_no_figure(book):
    rows = [
        {"method": "a", "label": "a", "sparsity": sparsity, "accuracy": 0.8}
        for sparsity in (0, 0.5, 0.8)
    ]
    text, figures = leaderboard([alpha(book, result(*rows))], [])
    assert figures == {}
    assert "80.00%" in text


def test_a_perplexity_above_the_vocabulary_is_broken_and_not_drawn(book):
    broken = OTHER | {"perplexity": 5e4 + 1, "method": "worse", "label": "Worse"}
    text, figures = leaderboard([alpha(book, result(DENSE, *DRAWS, broken, OTHER))], [])
    assert '<span class="pb-broken" title="worse than guessing among 50,000 words">' in text
    assert "50,001" not in text
    assert b"Worse" not in figures["leaderboard-1-weights.svg"]


def test_times_are_those_of_an_idle_machine(book):
    idle = OTHER | {"seconds": 3.0, "peak_memory": 2**20, "machine_busy": False}
    busy = OTHER | {"method": "b", "label": "B", "seconds": 5.0, "machine_busy": True}
    unknown = OTHER | {"method": "c", "label": "C", "seconds": 7.0}
    text, _ = leaderboard([alpha(book, result(idle, busy, unknown))], [])
    heads = re.findall("<th[^>]*>(.*?)</th>", text)
    rows = [dict(zip(heads, row, strict=True)) for row in table(text)]
    assert [row["Seconds"] for row in rows] == ["3.0", "–", "–"]
    assert rows[0]["Peak memory"] == "1.0 MiB"
    assert "machine was busy" not in text


def test_rows_of_version_1_are_folded_away(book):
    old = recorded("beta", result(OTHER | {"label": "Old"}), version=1)
    text, figures = leaderboard([alpha(book, result(DENSE))], [old])
    before, _, folded = text.partition('<details class="pb-earlier">')
    assert "Old" not in before
    assert "Old" in folded
    assert "\n\n" not in folded.partition("</details>")[0]
    assert figures == {}


def test_before_any_run(book):
    assert leaderboard([alpha(book)], []) == (leaderboard([], [])[0], {})
    assert "No notebook has been run yet." in leaderboard([], [])[0]


def test_markup_in_a_row_is_text(book):
    text, _ = leaderboard(
        [alpha(book, result({**DENSE, "label": "<script>", "note": "a\n\n# b"}))], []
    )
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert ">a # b</td>" in text


def test_values_of_a_protocol_that_are_no_text_have_a_heading(book):
    text, _ = leaderboard([alpha(book, result(DENSE, model=7, evaluation=None))], [])
    assert "## 7, evaluation not named" in text.replace("\\", "")


def test_caches_have_no_sparsity_and_no_figure(book):
    cache = {"method": "h2o", "label": "H2O", "perplexity": 21.0}
    tables = [result(DENSE, cache, cache=budget) for budget in ("20% of it", "50% of it")]
    text, figures = leaderboard([alpha(book, *tables)], [])
    assert figures == {}
    assert [row[1] for row in table(text)] == ["dense", "H2O", "H2O"]
