"""Masks: every way that is taken on a CPU beside torch's own."""

import operator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunebook.kernels import masking

SPECIAL = [0.0, -0.0, 1.5, -2.0, float("inf"), float("-inf"), float("nan")]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def bits_of(values: torch.Tensor) -> torch.Tensor:
    """The bits, so that NaN equals itself and -0.0 is no 0.0."""
    return values.contiguous().view(torch.uint8)


def weight_and_mask(rows: int, columns: int, seed: int, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    choice = torch.randint(len(SPECIAL), (rows, columns), generator=generator)
    keep = torch.rand(rows, columns, generator=generator) < 0.5
    return torch.tensor(SPECIAL, dtype=dtype)[choice], keep


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fill", [0.0, -0.0, float("inf"), -1.0])
def test_what_goes_is_overwritten_and_what_stays_keeps_its_bits(dtype, fill):
    weight, keep = weight_and_mask(300, 257, 0, dtype)  # more than one chunk
    expected = weight.masked_fill(~keep, fill)
    assert torch.equal(bits_of(masking.masked_copy(weight, keep, fill)), bits_of(expected))
    written = weight.clone()
    assert masking.apply_mask(written, keep, fill) is written
    assert torch.equal(bits_of(written), bits_of(expected))


def test_a_transposed_weight_is_written_where_it_stands():
    stored, keep = weight_and_mask(40, 30, 1)
    expected = stored.T.masked_fill(~keep.T, 0)
    masking.apply_mask(stored.T, keep.T)
    assert torch.equal(bits_of(stored), bits_of(expected.T))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 1)])
def test_empty_and_single_weights(shape):
    weight = torch.ones(shape)
    keep = torch.zeros(shape, dtype=torch.bool)
    assert torch.equal(masking.masked_copy(weight, keep), torch.zeros(shape))
    assert masking.places_of(keep).tolist() == []
    assert masking.count_rows(keep).tolist() == [0] * shape[0]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int64])
@pytest.mark.parametrize(
    "relation", [operator.gt, operator.lt, operator.ge, operator.le, operator.eq, operator.ne]
)
def test_comparisons_are_those_of_torch(relation, dtype):
    left, _ = weight_and_mask(20, 30, 2, torch.float64)
    right, _ = weight_and_mask(20, 1, 3, torch.float64)
    if not dtype.is_floating_point:
        left = left.nan_to_num(3.0, 9.0, -9.0)
        right = right.nan_to_num(3.0, 9.0, -9.0)
    left = left.to(dtype)
    right = right.to(dtype)
    assert torch.equal(masking.mask_where(relation, left, right), relation(left, right))
    assert torch.equal(masking.mask_where(relation, left.T, 0), relation(left.T, 0))


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9))
def test_counts_and_places_are_those_of_the_mask(seed, rows, columns):
    _, keep = weight_and_mask(rows, columns, seed)
    flat = keep.flatten().tolist()
    assert masking.places_of(keep).tolist() == [place for place, kept in enumerate(flat) if kept]
    counts = masking.count_rows(keep)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [sum(row) for row in keep.tolist()]


def test_masks_of_weights_that_are_trained():
    weight = torch.tensor([[1.0, -2.0], [3.0, 4.0]], requires_grad=True)
    keep = masking.mask_where(operator.gt, weight, 0)
    assert keep.tolist() == [[True, False], [True, True]]
    masking.masked_copy(weight, keep).sum().backward()
    assert weight.grad.tolist() == [[1.0, 0.0], [1.0, 1.0]]
    with pytest.raises(RuntimeError, match="in-place"):  # torch's own refusal
        masking.apply_mask(weight, keep)
