"""The order of the methods at equal sparsity, from a record put in by hand."""

import re
from dataclasses import replace

import numpy as np

from prunebook.runs.records import run_of
from prunebook.site.pages.leaderboard import leaderboard
from prunebook.site.pages.ordering import ordering


def row(label, level, seed, perplexity, method="wanda", **options):
    return {
        "label": label,
        "method": method,
        "options": options,
        "level": level,
        "seed": seed,
        "perplexity": perplexity,
        "date": "2026-11-24T10:00:00+00:00",
    }


ROWS = [
    row("Wanda", "50 %", 0, 29.0),
    row("Wanda", "50 %", 1, 30.0),
    row("Wanda", "50 %", 2, 31.0),
    row("Magnitude", "50 %", 0, 4000.4, "magnitude"),
    row("Wanda", "2:4", 0, 90.0),
    row("Wanda", "2:4", 1, 92.0),
    row("Magnitude", "2:4", 0, 80.0, "magnitude"),
    row("OWL", "50 %", 0, 28.0, "owl", shots=1, by="row"),
    row("OWL", "50 %", 1, 28.5, "owl", shots=1, by="row"),
]
RECORD = {
    "kind": "prunebook-ordering",
    "version": 1,
    "dense": 17.12,
    "rows": ROWS,
    "protocol": {"model": "m", "evaluation": "4 x 8 tokens", "seeds": 3},
}


def test_means_intervals_and_ratios():
    text, figures = ordering(RECORD, ["wanda", "owl"])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines == [
        "| method | 50 % | 2:4 |",
        "|---|--:|--:|",
        "| [Wanda](papers/wanda.ipynb) | 30.0\u00a0± 2.5<br>×1.75 | 91\u00a0± 13<br>×5.32 |",
        "| Magnitude | 4000<br>×233.67 | 80.00<br>×4.67 |",
        "| [OWL](papers/owl.ipynb) | 28.2\u00a0± 3.2<br>×1.65 | – |",
    ]
    assert (
        "model: m; evaluation: 4 x 8 tokens; seeds: 3. Dense: 17.12. Recorded on 2026-11-24."
        in text
    )
    assert "is broken. Options beside the sparsity: OWL: shots 1, by row. model: m" in text
    assert "mean over 3 calibration draws with its 95 % interval" in text
    assert "no method is tested against the best" in text
    assert list(figures) == ["ordering.svg"]


def test_ties_are_those_of_the_test_where_losses_are_on_record():
    generator = np.random.default_rng(0)
    means = {"Wanda": 3.0, "Magnitude": 8.0, "OWL": 3.02}
    rows = [
        row | {"losses": (means[row["label"]] + generator.normal(0, 0.05, 8)).tolist()}
        for row in ROWS
    ]
    text, _ = ordering(RECORD | {"rows": rows})
    assert "30.0\u00a0± 2.5 *(best)*<br>" in text
    text, _ = ordering(RECORD | {"rows": [*rows, ROWS[0]]})
    assert "by an earlier record" in text
    assert "*(best)*" not in text
    text, _ = ordering(RECORD | {"rows": rows})
    # Two draws are too few to be tested against the best.
    assert "28.2\u00a0± 3.2<br>" in text
    assert "4000<br>" in text
    assert "*(best)* is the lowest mean of a column" in text


def test_what_is_worse_than_guessing_is_broken():
    rows = [row("Wanda", "50 %", 0, 30.0), row("Magnitude", "50 %", 0, 6e4, "magnitude")]
    text, figures = ordering(RECORD | {"rows": rows})
    assert "| Magnitude | broken |" in text
    assert "ordering.svg" in figures


def test_the_figure_names_methods_and_levels_and_is_the_same_each_time():
    _, figures = ordering(RECORD)
    svg = figures["ordering.svg"].decode()
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"Wanda", "Magnitude", "OWL", "dense", "50 %", "2:4", "perplexity (log scale)"} <= set(
        texts
    )
    assert ordering(RECORD)[1]["ordering.svg"].decode() == svg


def test_it_opens_the_leaderboard_if_it_can_be_tested():
    table = {"rows": [{"method": "dense", "perplexity": 5.0}], "date": "2026-11-23", "commit": "a"}
    run = replace(
        run_of("alpha", "Alpha", "book", [table | {"protocol": {}}], []), file="record.json"
    )
    tested = RECORD | {"rows": [row | {"losses": [3.0] * 8} for row in ROWS]}
    text, figures = leaderboard([], [run], tested)
    assert text.index("## The order at equal sparsity\n") < text.index("## model not named")
    assert "ordering.svg" in figures
    text, figures = leaderboard([], [run], RECORD)
    assert text.index("## The order at equal sparsity, by an") > text.index("## model not named")
    assert "where a section above has another number, that one counts" in text
    assert "ordering.svg" in figures
    assert "The order at equal" not in leaderboard([], [])[0]
