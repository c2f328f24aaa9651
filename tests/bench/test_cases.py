"""The real cases on small shapes: every implementation that a CPU has is right, and gets what it asks for."""

from dataclasses import replace

import pytest
from fakes import RUN, FakeTimer

from prunebook.bench.cases import (
    all_cases,
    logits,
    matmul_2_4,
    n_of_m,
    one_shot,
    select_layer,
    select_rows,
    sparsegpt,
    ternary,
)
from prunebook.bench.measure import measure

ON_CUDA = {"torch 2:4, cuSPARSELt", "torch 2:4, CUTLASS", "dense FP8", "torch's 4x4 tile kernel",
           "torch.topk and to_sparse_semi_structured", "dense int8"}  # fmt: skip


def without_kernels(case):
    """The case with its public calls alone: tests/kernels has an interpreted pass over a layer, which takes 15 s."""
    return replace(case, providers=[replace(provider, device=None) for provider in case.providers])


def without_compiled(case):
    """The case without what takes a compiler."""
    return replace(case, providers=[provider for provider in case.providers if "compiled" not in provider.name])


SMALL = [
    *(select_rows.case(6, 64, score, 0.7, rank=1) for score in ("wanda", "ria", "magnitude")),
    select_rows.case(3, 100, "wanda", 0.5, rank=2, heavy=True),
    without_kernels(select_layer.case(6, 64, "ria", rank=1)),
    n_of_m.case(6, 64, 2, 4, "wanda", rank=1),
    n_of_m.case(6, 64, 4, 8, "ria", rank=1),
    matmul_2_4.case(3, 32, 64, rank=1),
    ternary.case(3, 40, 66, rank=1),
    sparsegpt.block(6, "0.5", rank=1, columns=32),
    sparsegpt.block(6, "2:4", rank=1, columns=32),
    sparsegpt.layer(8, 160, rank=1),
    without_compiled(logits.case(5, 48, rank=1)),
    one_shot.case(2, 3, 16, {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.key)
def test_who_runs_on_a_cpu_is_right(case):
    rows = measure(case, FakeTimer(), 0, RUN)
    found = {row.name: (row.status, row.reason) for row in rows}
    assert {name for name, (status, _) in found.items() if status == "missing"} == set(found) & ON_CUDA
    assert {status for status, _ in found.values()} <= {"timed", "missing"}, found


def test_every_case_has_a_key_of_its_own_and_ours_first():
    cases = all_cases()
    assert len({case.key for case in cases}) == len(cases)
    assert {case.providers[0].name for case in cases} == {"prunebook"}
    assert all(len({provider.name for provider in case.providers}) == len(case.providers) for case in cases)
    assert all(case.work.bytes > 0 for case in cases)


def test_the_headlines_of_all_families_come_before_any_detail():
    headlines = [case for case in all_cases() if case.rank == 0]
    assert {case.kernel for case in headlines} >= {"select-rows", "n-of-m", "product-2-4", "sparsegpt"}
    assert sum(case.seconds for case in headlines) < 300
