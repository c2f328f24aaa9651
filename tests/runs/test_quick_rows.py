"""The fingerprint of a quick run: what counts as a change."""

import pytest
from tests.small_book import CLAIMS, SHOWN, write_sources

from prunebook.catalog import read_papers
from prunebook.notebook.claims import CLAIM_MIME
from prunebook.notebook.results import RESULTS_MIME
from prunebook.runs.notebooks import of_paper
from prunebook.runs.quick_rows import fingerprint, first_change, outputs_of, read_quick_run
from prunebook.runs.run import run_notebooks

ROWS = [{"label": "dense", "perplexity": 20.0}, {"label": "Tiny", "perplexity": 30.5, "kl": 0.0}]


def test_times_and_memory_are_left_out():
    timed = {"seconds": 1.0, "latency": None, "peak_memory": 7, "machine_busy": True}
    assert fingerprint([{"rows": [ROWS[0] | timed]}, {"rows": ROWS[1:]}]) == ROWS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"perplexity": 31.0}, None),
        ({"perplexity": 31.3}, "Tiny, perplexity: 31.3, was 30.5"),
        ({"kl": 5e-5}, None),
        ({"kl": 0.01}, "Tiny, kl: 0.01, was 0"),
        ({"label": "Small"}, "Small, label: Small, was Tiny"),
        ({"perplexity": None}, "Tiny, perplexity: nothing, was 30.5"),
        ({"pattern": "2:4"}, "Tiny, pattern: 2:4, was nothing"),
    ],
)
def test_numbers_may_move_by_two_per_cent(change, words):
    assert first_change(ROWS, [ROWS[0], ROWS[1] | change]) == words


def test_rows_that_come_or_go_are_a_change():
    assert first_change(ROWS, ROWS) is None
    assert first_change(ROWS, ROWS[:1]) == "the quick run has 1 rows, was 2"


def test_only_an_up_to_date_quick_run_counts(book):
    write_sources(book.root)
    book.add("alpha", SHOWN, CLAIMS)
    (paper,) = read_papers(book.root)
    assert read_quick_run(book.root, of_paper(paper)) is None
    run_notebooks(book.root)
    rows, claims = read_quick_run(book.root, of_paper(paper))
    assert rows == [{"label": "dense", "perplexity": 20.0}, {"label": "Tiny", "perplexity": 30.5}]
    assert [claim["key"] for claim in claims] == ["k1", "k2", "k3"]
    book.add("alpha", SHOWN, CLAIMS, "1")
    assert read_quick_run(book.root, of_paper(paper)) is None


def test_outputs_of_a_source_are_none(book):
    book.add("alpha", SHOWN)
    notebook = of_paper(read_papers(book.root)[0]).read()
    assert outputs_of(notebook, RESULTS_MIME) == outputs_of(notebook, CLAIM_MIME) == []
