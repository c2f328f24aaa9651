"""What the code of a page says, read from its cells and never run."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from prunebook.catalog.page_code import (
    CodeCell,
    checked_keys,
    code_cells,
    shown_sources,
    shows_errata,
    typed_colours,
)


def parsed(*sources: str) -> list[CodeCell]:
    """The code cells of a notebook of these cells."""
    return code_cells(new_notebook(cells=[new_code_cell(source) for source in sources]))


def test_code_cells_keep_their_place_and_are_parsed():
    folded = new_code_cell("x = 1", metadata={"tags": ["run", "hide-input"]})
    cells = code_cells(
        new_notebook(cells=[new_markdown_cell("# Title"), folded, new_code_cell("%time x")])
    )
    assert [(cell.index, cell.folded, cell.source) for cell in cells] == [
        (1, True, "x = 1"),
        (2, False, "%time x"),
    ]
    assert cells[1].tree is None
    assert len(list(cells[0].nodes)) > len(list(cells[1].nodes)) == 1


def test_checked_keys():
    keys = checked_keys(
        parsed(
            "pb.check('better', ours='1')\ncheck('faster')\nother.checks('no')",
            "for n in (2, 4):\n    pb.check(f'speed-of-{n}-4.')",
            "for key in ('small', 'large'):\n    pb.check(key)",
        )
    )
    assert keys.written == {"better": 0, "faster": 0}
    assert list(keys.patterns.values()) == [1]
    assert keys.loose == {"small", "large"}
    assert not keys.all_untestable
    covered = ("better", "faster", "speed-of-2-4.", "speed-of-16-4.", "small", "large")
    assert all(keys.covers(key) for key in covered)
    assert not any(keys.covers(key) for key in ("best", "no", "speed-of--4.", "speed-of-2-4x"))


@pytest.mark.parametrize(
    ("sources", "shown"),
    [(["x = 1", "pb.check_rest()"], True), (["pb.check_rest"], False), (["%check_rest()"], False)],
)
def test_all_that_is_not_testable_is_shown_by_one_call(sources, shown):
    assert checked_keys(parsed(*sources)).all_untestable is shown


def test_errata_are_shown_by_one_call():
    assert shows_errata(parsed("x = 1", "show_errata()"))
    assert not shows_errata(parsed("x = 1", "print('show_errata()')"))


def test_sources_are_shown_as_they_are_written():
    (cell,) = parsed("show_source(Wanda.score, a._norm)\npb.show_source(pb.methods.Wanda)")
    assert shown_sources(cell) == ["Wanda.score", "a._norm", "pb.methods.Wanda"]


@pytest.mark.parametrize(
    ("code", "colours"),
    [
        ("axis.plot(x, color=palette.BLUE)\nlabel = 'black'", []),
        ("axis.plot(x, color='black')", ["black"]),
        ("axis.plot(x, c=colours['a'], edgecolor='none')", []),
        ("look = {'color': '0.8'}", ["0.8"]),
        ("for colour in ('#0072B2', '#fff'):\n    pass", ["#0072B2", "#fff"]),
        ("bar(x, color=['red' if a else 'C1' for a in b])", ["C1", "red"]),
        ("bar(x, color=('navy', 'white')[index])", ["navy", "white"]),
        ("print('issue #46')", []),
    ],
)
def test_colours_that_are_typed(code, colours):
    (cell,) = parsed(code)
    assert typed_colours(cell) == [(1, colour) for colour in colours]


def test_a_typed_colour_has_its_line():
    (cell,) = parsed("x = 1\nplot(x,\n    color='red', ec='#000')")
    assert typed_colours(cell) == [(3, "#000"), (3, "red")]
