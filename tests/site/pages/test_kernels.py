"""What the page on kernels shows: floors, and tables and figures of a record put in by hand, or how
one is made."""

import re

import pytest
from tests.bench.fakes import RUN, measured, timed

from prunebook.bench import work
from prunebook.bench.record import Record
from prunebook.site.drawings import kernels as draw
from prunebook.site.pages import kernels

NOTHING = {
    "device": None,
    "wall": None,
    "mode": None,
    "gb_s": None,
    "tflop_s": None,
    "of_copy": None,
    "of_gemm": None,
}


def product(tokens, ours, dense):
    moved = work.product_2_4(tokens, 11008, 4096)
    missing = timed(
        "torch 2:4", 1.0, moved, status="missing", reason="no cuSPARSELt here", **NOTHING
    )
    form = timed("prunebook, in another form", 2 * ours, moved, role="own")
    alone = timed("half of it", ours / 2, moved, role="control", mode="eager")
    rows = (
        timed("prunebook", ours, moved),
        timed("dense", dense, moved, note="cuBLAS"),
        missing,
        form,
        alone,
    )
    return measured("product-2-4", {"tokens": tokens, "rows": 11008, "columns": 4096}, moved, *rows)


@pytest.fixture
def cases():
    """A product that wins with one token and loses with many; a selection; a wrong one; all of one
    run."""
    moved = work.select(576, 1536, "wanda")
    ours = timed("prunebook", 4.0, moved)
    shape = {"rows": 576, "columns": 1536}
    wrong = timed("prunebook", 1.0, moved, status="wrong", reason="error 0.5 is above 0", **NOTHING)
    return [
        product(4096, 900.0, 450.0),
        product(1, 20.0, 30.0),
        measured(
            "select-rows",
            shape,
            moved,
            ours,
            timed("sort", 200.0, moved),
            score="wanda",
            sparsity=0.5,
        ),
        measured("select-rows", shape, moved, wrong, score="ria", sparsity=0.5),
    ]


@pytest.fixture
def book(tmp_path, cases):
    """The root of a book with that record."""
    record = Record()
    for case in cases:
        record.put(case, RUN)
    record.write(tmp_path / "benchmarks" / "results" / "kernels-fake-gpu-1.json")
    return tmp_path


@pytest.fixture
def shown(monkeypatch):
    """What the page shows: bundles, then figures as SVG."""
    import IPython.display

    outputs = []
    monkeypatch.setattr(kernels, "display_bundle", outputs.append)
    monkeypatch.setattr(
        IPython.display, "display", lambda figure: outputs.append(figure._repr_svg_())
    )
    return outputs


def test_floors_say_that_they_are_computed(shown):
    works = {
        "select": work.select(4096, 4096, "magnitude"),
        "many": work.dense_product(4096, 4096, 4096),
    }
    kernels.show_floors(works, 3e12, 8e14)
    lines = shown[0]["text/plain"].splitlines()
    assert lines[0].split() == [
        "Computation",
        "MB",
        "Floor",
        "[us],",
        "computed",
        "Bound",
        "by",
        "GFLOP",
    ]
    assert lines[1].split() == ["select", "67.1", "22.4", "bytes", "–"]
    assert lines[2].split() == ["many", "100.7", "171.8", "arithmetic", "137.4"]
    assert (
        "copy of 3 TB/s · products of 800 TFLOP/s · floors computed, not measured"
        in shown[0]["text/html"]
    )


def test_without_a_record_it_says_how_one_is_made(shown, tmp_path):
    kernels.show_kernel(kernels.records(root=tmp_path), "select-rows")
    (only,) = shown
    assert only["text/markdown"].startswith("No GPU run of `select-rows` is recorded yet.")
    assert "prunebook bench kernels --only select-rows" in only["text/plain"]
    assert not re.search(r"\d", only["text/plain"])


def test_a_record_without_the_kernel_counts_as_none(shown, book):
    kernels.show_kernel(kernels.records(root=book), "n-of-m")
    assert "is recorded yet" in shown[0]["text/plain"]


def test_a_kernel_has_a_table_reasons_and_two_figures(shown, book):
    kernels.show_kernel(kernels.records(root=book), "product-2-4")
    table, others, reasons, speedup, roof = shown
    head, one, many = table["text/plain"].splitlines()
    assert "Ours [us] (p20 to p80)" in head
    assert "Torch 2:4 [us]" in head
    assert re.split(r"\s{2,}", one) == [
        "11008 x 4096, tokens 1",
        "20.0 (18.0 to 24.0)",
        "graph",
        "85% of copy",
        "60",
        "30.0 graph, 1.50 x",
        "missing",
    ]
    assert "450.0 graph, 0.50 x" in many
    head, one, _ = others["text/plain"].splitlines()
    assert head.startswith("Case, no baselines")
    assert re.split(r"\s{2,}", one) == [
        "11008 x 4096, tokens 1",
        "40.0 graph, ours 50% of it",
        "10.0 eager, ours 120% of it by wall",
    ]
    assert (
        "ours in another form prunebook, in another form · control half of it"
        in others["text/html"]
    )
    assert reasons["text/plain"].splitlines() == [
        "- dense: cuBLAS",
        "- torch 2:4, missing: no cuSPARSELt here",
    ]
    told = table["text/html"]
    assert (
        "device Fake GPU 1 · driver 1 · torch 2.11.0 · triton 3.6.0 · copy 3,000 GB/s · product "
        "800 TFLOP/s" in told
    )
    assert (
        "clock 1980 to 1980 MHz · dtype bfloat16 · mode eager, graph · date 2026-11-27 · commit "
        "1234567" in told
    )
    assert speedup.startswith("<?xml")
    assert roof != speedup


def test_what_is_wrong_has_no_time(shown, book):
    kernels.show_kernel(kernels.records(root=book), "select-rows")
    assert "576 x 1536, ria, 0.5    wrong" in shown[0]["text/plain"]
    assert "prunebook, wrong: error 0.5 is above 0" in shown[1]["text/plain"]


def test_the_figure_of_speed_ups_has_the_losing_shape_left_of_one(cases):
    figure = draw.speedups(cases)
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "11008 x 4096, tokens 4096",
        "11008 x 4096, tokens 1",
        "576 x 1536, wanda, 0.5",
    ]
    points = {points.get_label(): points.get_offsets().tolist() for points in axis.collections}
    assert points["dense"] == [[0.5, 0], [1.5, 1]]
    assert points["sort"] == [[50, 2]]
    assert set(points) == {"dense", "sort"}
    assert "prunebook" not in points
    low, high = axis.get_xlim()
    assert low < 0.5
    assert high > 50
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "dense",
        "sort",
        "ours is slower",
    }
    assert "[GB/s]" in draw.bandwidths(cases, RUN).axes[0].get_xlabel()


def test_a_speed_up_of_wall_times_is_hollow():
    moved = work.Work(48_000_000)
    eager = timed("loop", 900.0, moved, mode="eager")
    case = measured(
        "n-of-m", {"rows": 8}, moved, timed("ours", 20.0, moved), timed("topk", 40.0, moved), eager
    )
    figure = draw.speedups([case])
    drawn = {points.get_label(): points for points in figure.axes[0].collections}
    alphas = {
        name: [float(face[3]) for face in points.get_facecolors()] for name, points in drawn.items()
    }
    assert alphas == {"topk": [0.85], "loop": [0], "hollow: by wall time": []}
    assert drawn["loop"].get_offsets().tolist() == [[940 / 60, 0]]


def test_the_roof_is_that_of_the_measured_ceilings(cases):
    figure = draw.roofline(cases[:2], RUN)
    (axis,) = figure.axes
    x, y = axis.lines[0].get_data()
    assert y[0] == pytest.approx(3.0 * x[0])  # TFLOP/s, of FLOP a byte at 3,000 GB/s
    assert y[-1] == 800
    (ours,) = [points for points in axis.collections if points.get_label() == "prunebook"]
    assert ours.get_offsets()[1].tolist() == pytest.approx(
        [cases[1].flop / cases[1].bytes, cases[1].flop / 20e6]
    )
    assert (axis.get_xlabel(), axis.get_ylabel()) == (
        "operations a byte [FLOP/B]",
        "achieved [TFLOP/s]",
    )
    assert figure._repr_svg_() == draw.roofline(cases[:2], RUN)._repr_svg_()


def test_colour_is_never_the_only_difference(cases):
    look = draw._styles(cases)
    assert (
        len({colour for colour, _ in look.values()})
        == len({marker for _, marker in look.values()})
        == len(look)
    )
