"""What the page on kernels shows: floors, tables and figures of a record, or how one is made."""

import re

import pytest
from tests.bench.fakes import RUN
from tests.site.recorded_kernels import recorded_cases

from prunebook.bench import work
from prunebook.bench.record import Record
from prunebook.site.pages import kernels


@pytest.fixture
def book(tmp_path):
    """The root of a book with that record."""
    record = Record()
    for case in recorded_cases():
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
