"""The leaderboard and the recorded runs it reads, from tables put in by hand."""

import json
import re
from dataclasses import replace

import pytest
from tests.small_book import published

from prunebook.catalog import read_papers
from prunebook.errors import UserError
from prunebook.runs.executed import Execution
from prunebook.runs.records import Run, read_runs, record_runs
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


def test_draws_are_averaged_and_rows_go_by_perplexity(book):
    text, _ = leaderboard([alpha(book, result(OTHER, *DRAWS, DENSE))], [])
    assert [row[:5] for row in table(text)] == [
        [ALPHA, "dense", "–", "0.00%", "20.00"],
        [ALPHA, "Big", "70 %", "70.00%", "25.00"],
        [ALPHA, "Tiny", "50 %", "50.00%", "30.50"],
    ]
    heads = re.findall("<th[^>]*>(.*?)</th>", text)
    tiny = dict(zip(heads, table(text)[2], strict=True))
    assert tiny["Seeds"] == "2"
    assert tiny["Size"] == "7"
    assert (tiny["Device"], tiny["Date"], tiny["Commit"]) == ("one CPU", "2026-11-23", "abc")


def test_a_row_that_two_notebooks_measured_stands_once(book):
    run = Run("beta", "Be <ta", "ci", [result(DENSE)], [])
    text, _ = leaderboard([alpha(book, result(DENSE))], [run])
    assert [row[0] for row in table(text)] == [f"{ALPHA}, Be &lt;ta"]


def test_rows_of_another_device_join_the_table_and_those_of_another_text_do_not(book):
    gpu = Run(
        "beta",
        "Beta",
        "gpu",
        [result(OTHER, device="GPU"), result(DENSE, evaluation="9 windows")],
        [],
    )
    text, _ = leaderboard([alpha(book, result(DENSE))], [gpu])
    assert text.count('<table class="pb-results">') == 2
    assert [row[1] for row in table(text)] == ["dense", "Big"]
    assert "GPU" in table(text)[1]


def test_the_figure_is_drawn_from_the_rows_and_always_the_same(book):
    paper = alpha(book, result(DENSE, *DRAWS, OTHER))
    (text, figures), again = leaderboard([paper], []), leaderboard([paper], [])[1]
    assert list(figures) == ["leaderboard-1.svg"]
    assert "```{figure} leaderboard-1.svg" in text
    assert figures == again
    drawn = figures["leaderboard-1.svg"].decode()
    assert all(f"{name}</text>" in drawn for name in ("tiny", "big", "dense"))
    assert leaderboard([alpha(book, result(DENSE))], [])[1] == {}


def test_rows_without_perplexity_have_a_table_and_no_figure(book):
    rows = [
        {"method": "a", "label": "a", "sparsity": sparsity, "accuracy": 0.8}
        for sparsity in (0, 0.5, 0.8)
    ]
    text, figures = leaderboard([alpha(book, result(*rows))], [])
    assert figures == {}
    assert "80.00%" in text


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


def test_runs_are_recorded_and_read_again(book):
    paper = alpha(book, result(*DRAWS))
    path = record_runs(book.root, [paper], "ci")
    assert path.relative_to(book.root).as_posix() == "benchmarks/results/runs-ci-one-cpu.json"
    (path.parent / "kernels.json").write_text('{"benchmark": "kernels"}')
    assert read_runs(book.root) == [Run("alpha", "Alpha", "ci", paper.results, [])]


def test_only_runs_that_are_up_to_date_are_recorded(book):
    paper = alpha(book, result(DENSE))
    old = replace(paper, current=False)
    for papers, profile in (([old], "ci"), ([paper], "gpu")):
        with pytest.raises(UserError, match=f"no up-to-date run under profile '{profile}'"):
            record_runs(book.root, papers, profile)
    assert not (book.root / "benchmarks").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no readable record"),
        (json.dumps({"kind": "prunebook-runs", "version": 2, "runs": []}), "version 2 is not 1"),
        (
            json.dumps({"kind": "prunebook-runs", "version": 1, "runs": [{"slug": "a"}]}),
            "is no readable record",
        ),
    ],
)
def test_an_unreadable_record_is_one_line(book, content, message):
    folder = book.root / "benchmarks" / "results"
    folder.mkdir(parents=True)
    (folder / "bad.json").write_text(content)
    with pytest.raises(UserError, match=f"benchmarks/results/bad.json.*{message}"):
        read_runs(book.root)
