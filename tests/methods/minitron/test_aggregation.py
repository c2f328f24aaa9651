"""Aggregations of activations over tokens and samples: cases by hand."""

import math

import pytest
import torch

from prunebook.methods.minitron.aggregation import Aggregated

HAND = torch.tensor([[3.0, -1.0], [-2.0, 2.0]])[..., None]  # two samples, two tokens, one channel


@pytest.mark.parametrize(
    ("over_samples", "over_tokens", "expected"),
    [
        ("l2", "mean", math.sqrt(8)),
        ("l2", "l2", math.sqrt(18)),
        ("mean", "mean", 2),
        ("mean", "l2", (math.sqrt(10) + math.sqrt(8)) / 2),
        ("mean", "var", 4),
        ("var", "mean", 0),
        ("var", "var", 0),
        ("l2", "var", math.sqrt(32)),
        ("var", "l2", ((math.sqrt(10) - math.sqrt(8)) / 2) ** 2),
    ],
)
def test_two_samples_by_hand(over_samples, over_tokens, expected):
    together, apart = (Aggregated(1, 1, over_samples, over_tokens) for _ in range(2))
    together.update(HAND)
    for sample in HAND:
        apart.update(sample[None])
    for found in (together, apart):
        assert found.scores("channels").item() == pytest.approx(expected, abs=1e-6)


def test_heads_take_the_norm_of_each_token_first():
    found = Aggregated(4, 2, "l2", "mean")
    found.update(torch.tensor([[[3.0, 4.0, 0.0, 1.0], [0.0, 5.0, 0.0, -3.0]]]))
    assert found.scores("heads").tolist() == pytest.approx([5, 2])
    assert found.scores("channels").tolist() == pytest.approx([1.5, 4.5, 0, 2])


def test_nearly_equal_samples_have_no_variance_below_zero():
    values = torch.rand(1, 1, 64, generator=torch.Generator().manual_seed(0)).repeat(300, 1, 1)
    values[0] = torch.nextafter(values[0], torch.ones(64))
    found = Aggregated(64, 8, "var", "mean")
    found.update(values)
    assert 0 <= found.scores("channels").min() <= found.scores("channels").max() < 1e-12
