"""A paper with made-up outcomes, for the tests of its card, its page and the scoreboard."""

from tests.small_book import SmallBook, published

from prunebook.catalog import Address, read_papers
from prunebook.runs.executed import Execution
from prunebook.site.published import Published

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


def results(*rows: dict, model: str = "m") -> dict:
    """A table as a notebook's output holds it."""
    protocol = {"model": model, "device": "one CPU"}
    versions = {"torch": "2.13.0"}
    return {
        "rows": list(rows),
        "protocol": protocol,
        "versions": versions,
        "date": "2026-11-23",
        "commit": "abc",
    }


def alpha_with_outcomes(book: SmallBook) -> Published:
    """`alpha` as published with two claims and one table."""
    book.add("alpha", "1")
    (paper,) = read_papers(book.root)
    execution = Execution(paper.path, "key", "ci", 12.3, "2026-11-23", {})
    table = results(
        {"label": "dense", "seed": None, "perplexity": 20.0, "sparsity": 0.0},
        {"label": "Tiny", "seed": 0, "perplexity": 30.0, "sparsity": 0.5, "parameters": 7},
        {"label": "Tiny", "seed": 1, "perplexity": 31.0, "sparsity": 0.5, "parameters": 7},
    )
    return published(paper, execution, claims=[CLAIM, NOT_TESTABLE], results=[table])
