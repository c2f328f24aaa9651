"""Relative importance by hand, by its sums and by its invariances."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from prunebook.criteria.ria import ria_score


def relative_importance(weight):
    """The score without data."""
    return ria_score(weight, torch.ones(weight.shape[1]), 0).dense()


def random_weight(seed, rows=5, columns=7):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_a_matrix_by_hand():
    weight = torch.tensor([[1.0, -2], [-3, 4]])
    expected = torch.tensor([[7 / 12, 1], [33 / 28, 26 / 21]])
    torch.testing.assert_close(relative_importance(weight), expected)
    norm = torch.tensor([4.0, 9])
    torch.testing.assert_close(ria_score(weight, norm).dense(), expected * torch.tensor([2.0, 3]))
    torch.testing.assert_close(
        ria_score(weight, norm, 2.0).dense(), expected * torch.tensor([16.0, 81])
    )
    assert torch.equal(ria_score(weight, norm, 0).dense(), relative_importance(weight))


def test_a_single_weight_is_all_of_its_row_and_column():
    assert relative_importance(torch.tensor([[-0.3]])).item() == 2


def test_shares_of_nothing_are_zero():
    weight = torch.tensor([[0.0, 0, 0], [0, 1, 3]])
    expected = torch.tensor([[0, 0, 0], [0, 1 + 1 / 4, 1 + 3 / 4]])
    torch.testing.assert_close(relative_importance(weight), expected)


@given(st.integers(0, 2**31), st.sampled_from([0.25, 4.0]))
def test_shares_sum_to_the_size_and_ignore_the_scale(seed, scale):
    weight = random_weight(seed)
    importance = relative_importance(weight)
    torch.testing.assert_close(importance.sum(), torch.tensor(5.0 + 7.0))
    assert torch.equal(relative_importance(weight * scale), importance)  # powers of two: exactly


def test_narrow_weights_are_summed_in_float32():
    weight = random_weight(0, 64, 64).to(torch.bfloat16)
    assert relative_importance(weight).dtype == torch.float32
    assert torch.equal(relative_importance(weight), relative_importance(weight.float()))
