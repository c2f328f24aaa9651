"""What the leaderboard says of a row: ties with the best by the paired test, broken models."""

import numpy as np
import pytest

from prunebook.site.pages.board_cells import marks, shown_cells, shown_perplexity
from prunebook.site.pages.board_rows import Board, BoardRow


def row(mean, draws=3, level="50 %", windows=16, seeds=None, calibration=None):
    """A row whose losses lie around a mean."""
    noise = np.random.default_rng(int(1000 * mean)).normal(0, 0.01, (3, 16))
    losses = mean + noise[:draws, :windows]
    perplexities = tuple(np.exp(losses.mean(axis=1)))
    cells = {"method": "tiny", "perplexity": float(np.mean(perplexities)), "seeds": seeds}
    cells["calibration"] = calibration
    return BoardRow(cells, ("alpha",), "weights", level, perplexities, tuple(map(tuple, losses)))


def test_ties_with_the_best_are_those_of_the_test():
    rows = [row(4.0), row(3.0), row(3.001), row(3.5, level="2:4")]
    assert marks(rows) == {0: "worse", 1: "best", 2: "tie"}


def test_what_has_no_draw_stands_beside_each_draw():
    assert marks([row(3.0), row(4.0, draws=1)]) == {0: "best", 1: "worse"}
    assert marks([row(4.0), row(3.0, draws=1)]) == {0: "worse", 1: "best"}
    assert marks([row(3.0, draws=1), row(4.0, draws=1)]) == {0: "best", 1: "worse"}


def test_methods_that_read_as_much_text_are_compared():
    usual = [row(3.0, calibration="16 x 512"), row(4.0, calibration="16 x 512")]
    other = row(2.5, calibration="32 x 256")
    magnitude = row(6.0, draws=1)
    # The other calibration is alone but for magnitude, which stands beside the usual one.
    assert marks([*usual, other, magnitude]) == {0: "best", 1: "worse", 2: "best", 3: "worse"}
    assert marks([*usual, other]) == {0: "best", 1: "worse"}
    # Worse than the other calibration, and the best beside the usual one, which counts.
    magnitude = row(2.8, draws=1)
    shown = {0: "worse", 1: "worse", 2: "best", 3: "best"}
    assert marks([*usual, other, magnitude]) == shown


def test_few_draws_or_few_windows_cannot_tell():
    assert marks([row(3.0), row(4.0, draws=2)]) == {0: "best", 1: "few draws"}
    drawn_once = row(4.0, draws=1, seeds=1)
    assert marks([row(3.0), drawn_once]) == {0: "best", 1: "few draws"}
    assert marks([row(3.0, windows=4), row(4.0, windows=4)]) == {0: "best"}
    assert marks([row(3.0), row(4.0, windows=4)]) == {0: "best"}
    without = BoardRow({}, (), "weights", "50 %", (20.0,))
    assert marks([without, without]) == {}


@pytest.mark.parametrize(("number", "shown"), [(None, None), (99.0, 99.0), (100.5, "broken")])
def test_a_perplexity_above_the_vocabulary_is_broken(number, shown):
    value = shown_perplexity(number, 100)
    if shown == "broken":
        assert ">broken</span>" in value.__html__()
    else:
        assert value == shown


def test_cells_have_interval_and_ratio_only_where_they_mean_something():
    board = Board({"vocabulary": 100}, 10.0)
    cells = shown_cells(BoardRow({"perplexity": 20.0}, (), "weights", "", (19.0, 21.0)), board)
    assert cells["half_width"] == pytest.approx(12.706, abs=0.01)
    assert cells["perplexity_ratio"] == 2.0
    single = shown_cells(BoardRow({"perplexity": 20.0}, (), "weights", "", (20.0,)), board)
    assert "half_width" not in single
    broken = shown_cells(BoardRow({"perplexity": 200.0}, (), "weights", "", (200.0, 201.0)), board)
    assert {"half_width", "perplexity_ratio"} & broken.keys() == set()
    assert shown_cells(BoardRow({"accuracy": 0.5}, (), "weights", ""), board) == {"accuracy": 0.5}
