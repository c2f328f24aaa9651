"""The kernel for short groups against the rule, equal bit by bit, interpreted or on a GPU."""

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
from prunebook.kernels.topk.rows import select_rows_reference
from prunebook.kernels.topk.rule import keep_largest_reference
from prunebook.kernels.topk.short import launch_short

pytestmark = needs_triton


@pytest.mark.parametrize(
    ("form", "want"), [("magnitude", "mask"), ("wanda", None), ("ria", "bits")]
)
@pytest.mark.parametrize(
    ("rows", "width", "dtype"),
    [
        (6, 63, torch.float32),
        (6, 576, torch.bfloat16),
        (6, 123, torch.float16),
        (1, 1536, torch.float32),
        (7, 1, torch.float32),
        (2, 17, torch.bfloat16),
    ],
)
def test_rows(rows, width, dtype, form, want):
    ours = random_weight(rows, width, dtype)
    theirs = ours.clone()
    removed = counts(rows, width // 2, width // 3, 1, width - 1, 0, width)
    kernel = launch_short(score_of(ours, form), removed, width, True, want)
    reference = select_rows_reference(score_of(theirs, form), removed, width, True, want)
    assert_same(kernel, reference)
    assert torch.equal(ours, theirs)
    assert torch.equal(kernel.kept.cpu(), width - removed)


@pytest.mark.parametrize(
    ("group", "want"), [(8, "bits"), (4, "bits"), (16, "mask"), (3, "mask"), (24, None)]
)
def test_pieces_of_rows(group, want):
    ours = random_weight(3, 48)
    theirs = ours.clone()
    removed = counts(3 * 48 // group, group // 2, group, 0)
    kernel = launch_short(score_of(ours, "ria"), removed, group, True, want)
    reference = select_rows_reference(score_of(theirs, "ria"), removed, group, True, want)
    assert_same(kernel, reference)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("write", [True, False])
def test_a_transposed_weight_is_written_where_it_is(write):
    assert_written_where_it_is(
        lambda score: launch_short(score, counts(7, 20), 40, write, "mask"), write
    )


def test_scores_of_any_sign_with_infinities():
    scores = scores_of_any_sign()
    for k in range(14):
        selection = launch_short(Score(scores, given=True), counts(1, k), 13, False, "mask")
        assert torch.equal(selection.mask, keep_largest_reference(scores, k))


@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf])
def test_not_finite(value):
    weight = torch.ones(3, 40, device=DEVICE)
    weight[1, 33] = value
    with pytest.raises(UserError, match="scores of row 1 hold NaN or infinity"):
        launch_short(Score(weight), counts(3, 2), 40, True, None)


def test_compiled_for_hopper_with_little_spilling():
    """Whole rows may need a little of the stack; subnormals stay, and divisions are rounded."""
    printed = compile_apart(
        """
import contextlib, json, torch
from prunebook.errors import UserError
from prunebook.kernels.score import Score
from prunebook.kernels.topk.short import launch_short
with compiled_for() as found:
    for width in (576, 4096, 11008, 16384):
        weight, columns = torch.ones(8, width, dtype=torch.bfloat16), torch.ones(width)
        removed = torch.full((8,), 3)
        for score, write, want in (
            (Score(weight, columns), True, None),
            (Score(weight, columns, columns, torch.ones(8)), True, "bits"),
            (Score(weight, given=True), False, "mask"),
        ):
            with contextlib.suppress(UserError):  # no kernel says that scores are finite
                launch_short(score, removed, width, write, want)
print(json.dumps([
    (one.name, one.stack, ".ftz" in one.ptx, "div.rn.f32" in one.ptx) for one in found
]))
"""
    )
    compiled = json.loads(printed.splitlines()[-1])
    assert [name for name, *_ in compiled] == ["_select_kernel"] * 4 * 3
    assert max(stack for _, stack, _, _ in compiled) <= 64
    assert not any(flushed for _, _, flushed, _ in compiled)
    assert sum(divides for _, _, _, divides in compiled) == 4
