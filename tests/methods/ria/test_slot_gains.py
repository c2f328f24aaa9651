"""The fast distances and selections of RIA's assignment, against plain ones."""

import pytest
import torch

from prunebook.methods.ria.slot_gains import distances, nth_largest


@pytest.mark.parametrize("rows", [1, 511, 512, 1300])  # of one part, and of several
def test_distances_are_sums_of_absolute_differences(rows):
    generator = torch.Generator().manual_seed(rows)
    threshold, candidate = (torch.rand(9, rows, generator=generator) for _ in range(2))
    found = distances(threshold, candidate)
    assert found.dtype == torch.float64
    expected = (threshold.double()[:, None] - candidate.double()).abs().sum(2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_nth_largest_is_that_of_a_sort(n):
    tensors = torch.randint(4, (4, 6, 2), generator=torch.Generator().manual_seed(n)).float()
    before = tensors.clone()
    expected = tensors.sort(0, descending=True).values[n - 1]
    assert torch.equal(nth_largest(list(tensors), n), expected)
    assert torch.equal(tensors, before)
