"""The kernels for long groups against the rule, equal bit by bit, interpreted or on a GPU."""

import json

import pytest
import torch
from tests.kernels.compiling import DEVICE, compile_apart, needs_triton
from tests.kernels.selecting import (
    assert_same,
    assert_written_where_it_is,
    counts,
    random_weight,
    score_of,
    scores_of_any_sign,
)

from prunebook.errors import UserError
from prunebook.kernels.score import Score
from prunebook.kernels.topk import long
from prunebook.kernels.topk.long import launch_long
from prunebook.kernels.topk.rows import select_global_reference, select_rows_reference
from prunebook.kernels.topk.rule import keep_largest_reference

pytestmark = needs_triton


@pytest.fixture(autouse=True)
def small_programs(monkeypatch):
    """Several blocks a row and several programs a group, at sizes that can be interpreted."""
    monkeypatch.setattr(long, "_BLOCK", 16)
    monkeypatch.setattr(long, "_PROGRAM", 32)


@pytest.mark.parametrize(
    ("form", "share"),
    [("magnitude", 0), ("magnitude", 0.3), ("magnitude", 1), ("ria", 0.3), ("ria", 0.7)],
)
def test_layers_together(form, share):
    """Ties across layers, a row that ends within a block, a layer of one weight, a strided one."""
    layers = [
        random_weight(3, 23),
        random_weight(1, 1),
        random_weight(6, 3, torch.bfloat16).T,
        random_weight(2, 16).round(),
    ]
    removed = torch.tensor([int(share * sum(layer.numel() for layer in layers))])
    ours = [layer.clone() for layer in layers]
    theirs = [layer.clone() for layer in layers]
    kernel = launch_long([score_of(layer, form) for layer in ours], removed, True, "mask")
    scores = [score_of(layer, form) for layer in theirs]
    reference = select_global_reference(scores, removed, True, "mask")
    for selection, expected in zip(kernel, reference, strict=True):
        assert_same(selection, expected)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_long_rows():
    ours = random_weight(6, 50)
    theirs = ours.clone()
    removed = counts(6, 25, 0, 50, 13, 49, 1)
    (kernel,) = launch_long([score_of(ours, "wanda")], removed, True, "bits")
    reference = select_rows_reference(score_of(theirs, "wanda"), removed, 50, True, "bits")
    assert_same(kernel, reference)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("write", [True, False])
def test_a_transposed_weight_is_written_where_it_is(write):
    assert_written_where_it_is(
        lambda score: launch_long([score], counts(7, 20), write, "mask"), write
    )


def test_scores_of_any_sign_with_infinities():
    scores = scores_of_any_sign()
    for k in (0, 2, 5, 9, 13):
        (selection,) = launch_long([Score(scores, given=True)], counts(1, k), False, "mask")
        assert torch.equal(selection.mask, keep_largest_reference(scores, k))


@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf])
def test_not_finite(value):
    weight = torch.ones(3, 40, device=DEVICE)
    weight[1, 33] = value
    before = weight.clone()
    with pytest.raises(UserError, match=r"^scores hold NaN or infinity"):
        launch_long([Score(weight)], counts(1, 5), True, None)
    assert torch.equal(weight.nan_to_num(9, 8), before.nan_to_num(9, 8))


def test_compiled_for_hopper_without_spilling():
    """Nothing needs the stack; subnormals stay, and divisions are rounded."""
    printed = compile_apart(
        """
import json, torch
from prunebook.kernels.score import Score
from prunebook.kernels.topk.long import launch_long
with compiled_for() as found:
    for width in (576, 4096, 11008, 16384):
        columns = torch.ones(width)
        ria = Score(torch.ones(8, width, dtype=torch.bfloat16), columns, columns, torch.ones(8))
        launch_long([ria], torch.tensor([3]), True, "mask")
print(json.dumps([
    (one.name, one.stack, ".ftz" in one.ptx, "div.rn.f32" in one.ptx) for one in found
]))
"""
    )
    compiled = json.loads(printed.splitlines()[-1])
    passes = ["_histogram_kernel"] * 4 + ["_ties_kernel", "_write_kernel"]
    assert [name for name, *_ in compiled] == passes * 4
    assert not any(stack for _, stack, _, _ in compiled)
    assert not any(flushed for _, _, flushed, _ in compiled)
    assert all(divides for _, _, _, divides in compiled)
