"""The rows of the leaderboard: boards by protocol, kinds, levels, means of draws."""

import pytest

from prunebook.site.pages.board_rows import boards

DENSE = {"method": "dense", "label": "dense", "sparsity": 0.0, "perplexity": 20.0}
TINY = {"method": "tiny", "label": "Tiny", "pattern": "50 %", "sparsity": 0.5, "perplexity": 30.0}


def table(*rows, losses=None, **protocol):
    """A table as a notebook's output holds it."""
    shared = {"model": "m", "evaluation": "4 windows"}
    return {"rows": list(rows), "protocol": shared | protocol, "losses": losses or {}}


def only(*rows, **settings):
    """The row that is not dense, of one table."""
    (board,) = boards([("alpha", table(DENSE, *rows, **settings))])
    (row,) = [row for row in board.rows if not row.is_dense]
    return row


def test_a_board_has_one_protocol_and_one_dense_model():
    same = table(DENSE | {"perplexity": 20.01}, TINY | {"seed": 0}, calibration="another")
    other = table(DENSE | {"perplexity": 20.1})
    without = table(TINY | {"label": "alone", "seed": 0})
    text = table(DENSE, evaluation="9 windows")
    made = boards([("a", table(DENSE)), ("b", same), ("c", other), ("d", without), ("e", text)])
    shown = [(board.dense, [row.cells["label"] for row in board.rows]) for board in made]
    assert shown == [
        (20.0, ["dense", "Tiny", "alone"]),
        (20.1, ["dense"]),
        (20.0, ["dense"]),
    ]
    assert made[0].rows[0].papers == ("a", "b")


@pytest.mark.parametrize(
    ("change", "kind", "level"),
    [
        ({}, "weights", "50 %"),
        ({"pattern": "2:4, inputs permuted"}, "weights", "2:4"),
        ({"pattern": "0.5 per row"}, "weights", "50 %"),
        ({"pattern": "rows and columns"}, "structures", "50 %"),
        ({"pattern": "6 blocks", "sparsity": 0.2}, "structures", "20 %"),
        ({"pattern": None, "parameters": 80}, "structures", "50 %"),
        ({"pattern": "ternary weights"}, "ternary", "50 %"),
        ({"pattern": None, "sparsity": None}, "caches", ""),
    ],
)
def test_what_was_removed_and_what_may_be_compared(change, kind, level):
    dense = DENSE | {"parameters": 100}
    (board,) = boards([("alpha", table(dense, TINY | change))])
    row = board.rows[1]
    assert (row.kind, row.level) == (kind, level)


def test_draws_are_one_row_with_their_losses():
    draws = [TINY | {"seed": seed, "perplexity": 30.0 + seed} for seed in range(3)]
    row = only(*draws, losses={"Tiny": [[1, 2], [3, 4], [5, 6]]})
    assert (row.cells["perplexity"], row.cells["seeds"]) == (31.0, 3)
    assert row.perplexities == (30.0, 31.0, 32.0)
    assert row.losses == ((1, 2), (3, 4), (5, 6))
    # Losses that belong to other rows are not taken.
    assert only(*draws, losses={"Tiny": [[1, 2]]}).losses == ()


@pytest.mark.parametrize(
    ("protocol", "size"),
    [
        ({"model": "smollm2-135m"}, 49_152),
        ({"model": "gemma3-270m"}, 262_144),
        ({"model": "m"}, 50_000),
        ({"model": "m", "vocabulary": 1024}, 1024),
    ],
)
def test_the_size_of_the_vocabulary(protocol, size):
    (board,) = boards([("alpha", table(DENSE, **protocol))])
    assert board.vocabulary == size


def test_what_reads_no_text_has_no_calibration():
    magnitude = TINY | {"method": "magnitude"}
    assert only(magnitude, calibration="9 x 8").cells.get("calibration") is None
    assert only(TINY, calibration="9 x 8").cells["calibration"] == "9 x 8"


def test_the_level_of_a_cache_is_its_budget():
    cache = {"method": "h2o", "label": "H2O", "perplexity": 21.0}
    row = only(cache, cache="20% of the prompt")
    assert (row.kind, row.level) == ("caches", "20% of the prompt")
    assert row.cells["cache"] == "20% of the prompt"
    assert only(cache | {"budget": "0.5"}, cache="20% of the prompt").level == "0.5"
