"""Timed kernels put in by hand, for the tests of their tables and figures."""

from tests.bench.fakes import measured, timed

from prunebook.bench import work
from prunebook.bench.record import Measured

NOTHING = {
    "device": None,
    "wall": None,
    "mode": None,
    "gb_s": None,
    "tflop_s": None,
    "of_copy": None,
    "of_gemm": None,
}


def product(tokens: int, ours: float, dense: float) -> Measured:
    """A product whose time is `ours` microseconds, beside a dense one and others."""
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


def recorded_cases() -> list[Measured]:
    """A product that wins with one token and loses with many, a selection, and a wrong one.

    All are of one run.
    """
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
