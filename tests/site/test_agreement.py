"""What two places of the built pages tell differently."""

import json

import pytest

from prunebook.notebook.claim_boxes import claim_html
from prunebook.notebook.tables import results_html
from prunebook.site.agreement import disagreements

PROTOCOL = {"model": "m", "dtype": "float32", "calibration": "16 x 8 tokens", "evaluation": "2 x 8"}
CLAIM = {"key": "k", "statement": "a  < b", "paper": "7", "source": "Table 1"}
CLAIM["protocol"] = {"model": "of the claim", "evaluation": "9 x 9"}


@pytest.fixture
def site(tmp_path):
    """`site(rows, rows_of_leaderboard, ...)` writes a site of one paper; `disagreements` reads it.

    The claim has the verdicts `box`, `row` and `entry`.
    """

    def make(
        rows,
        others=(),
        protocol=PROTOCOL,
        own=PROTOCOL,
        *,
        box="holds",
        row="holds",
        entry="holds",
    ):
        (tmp_path / "papers").mkdir(exist_ok=True)
        table = results_html([row_of("OWL", 9.0)], PROTOCOL | {"model": "other"})
        table += results_html(rows, own | {"windows": 9})
        shown = claim_html(CLAIM | {"verdict": box, "ours": "6"})
        errata = '<table class="pb-results"><thead><tr><th>Where</th></tr></thead></table>'
        (tmp_path / "papers" / "alpha.html").write_text(table + shown + errata)
        (tmp_path / "leaderboard.html").write_text(results_html(list(others), protocol))
        cells = "<td>Alpha</td><td>?</td><td>a &lt; b</td>"
        text = f'<table><tr data-paper="alpha" data-verdict="{row}">{cells}</tr></table>'
        (tmp_path / "scoreboard.html").write_text(text)
        outcome = {"key": "k", "statement": "a < b", "verdict": entry}
        catalog = {"papers": [{"slug": "alpha", "outcomes": [outcome]}]}
        (tmp_path / "catalog.json").write_text(json.dumps(catalog))
        return disagreements(tmp_path)

    return make


def row_of(method, perplexity, **cells):
    return {"label": method, "pattern": "2:4", "sparsity": 0.5, "perplexity": perplexity} | cells


def test_the_mean_of_draws_agrees_with_the_leaderboard(site):
    draws = [row_of("Wanda", 1_180.0, seed=0), row_of("Wanda", 1_220.0, seed=1)]
    assert site(draws, [row_of("Wanda", 1_210.0)]) == []
    assert site(draws, [row_of("Wanda", 1_213.0)]) == [
        "m, float32, 2 x 8, 16 x 8 tokens, Wanda, 2:4, 50.00%: perplexity 1213.00 on leaderboard, "
        "table 1, 1200.00 on papers/alpha, table 2"
    ]


@pytest.mark.parametrize(
    "difference",
    [
        {"model": "n"},
        {"evaluation": "4 x 8"},
        {"evaluation_precision": "exact"},
        {"calibration": "8 x 8 tokens"},
        {"cache": "half"},
    ],
)
def test_another_protocol_may_have_another_number(site, difference):
    assert site([row_of("Wanda", 20.0)], [row_of("Wanda", 30.0)], PROTOCOL | difference) == []


def test_another_method_sparsity_or_budget_may_have_another_number(site):
    others = [
        row_of("RIA", 30.0),
        row_of("Wanda", 40.0, sparsity=0.6),
        row_of("Wanda", 50.0, budget="0.2"),
    ]
    assert site([row_of("Wanda", 20.0)], others) == []


def test_there_is_one_dense_model(site):
    dense = {"label": "dense", "perplexity": 20.0}
    calibrated = PROTOCOL | {"calibration": "8 x 8 tokens"}
    (line,) = site([dense], [dense | {"perplexity": 21.0}], calibrated)
    assert line.startswith("m, float32, 2 x 8, dense: perplexity 21.00 on leaderboard")
    assert site([dense | {"perplexity": None}], [dense], calibrated) == []


def test_magnitude_pruning_reads_no_calibration(site):
    calibrated = PROTOCOL | {"calibration": "8 x 8 tokens"}
    (line,) = site([row_of("Magnitude 2:4", 20.0)], [row_of("Magnitude 2:4", 30.0)], calibrated)
    assert line.startswith("m, float32, 2 x 8, Magnitude 2:4, 2:4, 50.00%: perplexity 30.00")


def test_what_the_leaderboard_has_as_a_column_is_compared(site):
    budget = PROTOCOL | {"cache": "half"}
    other = row_of("H2O", 30.0, calibration="16 x 8 tokens", cache="half")
    (line,) = site(
        [row_of("H2O", 20.0)], [other], {**PROTOCOL, "calibration": "", "cache": ""}, budget
    )
    assert "perplexity 30.00 on leaderboard" in line
    assert site([row_of("H2O", 20.0)], [row_of("H2O", "30 ± 2")], budget) == []


def test_a_claim_has_one_verdict(site):
    rows = [row_of("Wanda", 20.0)]
    places = "catalog.json has holds, the scoreboard has tie, its page has holds"
    assert site(rows, row="tie") == [f"papers/alpha: claim 'k': {places}"]
    assert "its page has fails" in site(rows, box="fails")[0]
    assert "catalog.json has not_judged" in site(rows, entry="not_judged")[0]
