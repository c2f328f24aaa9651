"""The table of a call: what its columns say, and what stands below it."""

import pytest
from tests.bench.fakes import RUN, measured, timed

from prunebook.bench.record import Record, Spread
from prunebook.bench.table import describe, microseconds, of_ceiling, speedup_text, summary
from prunebook.bench.work import Work


def test_the_table_has_a_losing_row():
    work = Work(48_000_000)
    record = Record()
    missing = timed("cuSPARSELt", 1.0, work, status="missing", reason="not built in", device=None)
    ours = timed("prunebook", 20.0, work)
    sort = timed("sort", 900.0, work)
    win = measured("select-rows", {"rows": 8}, work, ours, sort, missing)
    ours = timed("prunebook", 1234.5, work)
    cublas = timed("cuBLAS", 617.25, work)
    half = timed("half of it", 500.0, work, role="control")
    lose = measured("product-2-4", {"tokens": 4096}, work, ours, cublas, half)
    record.put(win, RUN)
    record.put(lose, RUN)
    text = summary(record, record.cases, RUN)
    head, first, second, *rest = text.splitlines()
    assert " ".join(head.split()) == (
        "Kernel Case Us Ceiling Wall us Mode Fastest baseline Its us Its wall us Its mode Speed-up"
    )
    assert " ".join(first.split()) == (
        "select-rows rows 8 20.0 (18.0 to 24.0) 80% of copy 60.0 graph sort 900.0 940.0 graph 45.00"
    )
    assert "1,234 (1,111 to 1,481)" in second
    assert second.split()[-5:] == ["cuBLAS", "617.2", "657.2", "graph", "0.50"]
    assert rest == [
        "control: product-2-4 tokens=4096: half of it: 500.0 us, graph, ours 247% of it",
        "missing: select-rows rows=8: cuSPARSELt: not built in",
        "left out: sparsegpt rows=4096: takes up to 60 s, 3 s are left",
    ]


def test_where_modes_are_mixed_wall_times_are_compared_and_the_table_says_so():
    work = Work(48_000_000)
    ours = timed("prunebook", 20.0, work, wall=Spread(50.0, 40.0, 60.0))
    eager = timed("loop", 900.0, work, mode="eager", wall=Spread(75.0, 70.0, 80.0))
    case = measured("n-of-m", {"rows": 8}, work, ours, timed("topk", 40.0, work), eager)
    assert case.speedups() == {"topk": 2.0, "loop": 1.5}
    record = Record()
    record.put(case, RUN)
    line = summary(record, record.cases, RUN).splitlines()[1]
    assert line.split()[-6:] == ["900.0", "75.0", "eager", "1.50", "by", "wall"]


def test_no_cases_make_no_table():
    assert summary(Record(), [], RUN) == (
        "left out: sparsegpt rows=4096: takes up to 60 s, 3 s are left"
    )


def test_the_texts_of_a_row():
    work = Work(48_000_000, 4_000_000_000)
    ours = timed("prunebook", 20.0, work)
    rival = timed("sort", 30.0, work)
    case = measured("select-rows", {"rows": 8}, work, ours, rival, score="wanda")
    assert describe(case.shape | case.settings) == "rows 8, score wanda"
    assert speedup_text(case, rival) == "1.50"
    # 48 MB and 4 GFLOP in 20 us, beside 3,000 GB/s and 800 TFLOP/s
    assert of_ceiling(ours) == "80% of copy"
    assert of_ceiling(timed("prunebook", 20.0, Work(1000, 4_000_000_000))) == "25% of product"


@pytest.mark.parametrize(
    ("median", "text"), [(999.9, "999.9 (1.0 to 2,000)"), (1000.0, "1,000 (1.0 to 2,000)")]
)
def test_times_are_in_microseconds(median, text):
    assert microseconds(Spread(median, 1.0, 2000.0)) == text
