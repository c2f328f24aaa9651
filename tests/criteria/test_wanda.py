"""Wanda's score and its running norm."""

import torch
from tests.passes.streamed import norm_of

from prunebook.criteria.magnitude import magnitude_score
from prunebook.criteria.wanda import wanda_score
from prunebook.sparsity.patterns import Unstructured, keep_mask

CPU = torch.device("cpu")
WEIGHT = torch.tensor([[1.0, -2, 3, -4]])
NORM = torch.tensor([8.0, 1, 1, 0.5])


def random_case(seed=0, rows=6, columns=20, tokens=50):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(columns, generator=generator) * 5
    return torch.randn(rows, columns, generator=generator), torch.randn(
        tokens, columns, generator=generator
    ) * scale


def mask(weight, inputs):
    return keep_mask(wanda_score(weight, norm_of(inputs)), Unstructured(0.5))


def test_score_and_mask_by_hand():
    scores = wanda_score(WEIGHT, NORM)
    assert scores.dense().tolist() == [[8, 2, 3, 2]]
    assert keep_mask(scores, Unstructured(0.5)).tolist() == [[True, False, True, False]]
    assert keep_mask(scores, Unstructured(0.25)).tolist() == [[True, False, True, True]]


def test_score_is_float32_whatever_the_weights_are():
    assert wanda_score(WEIGHT.bfloat16(), NORM.double()).dense().dtype == torch.float32
    assert magnitude_score(WEIGHT.half()).dense().dtype == torch.float32
    assert magnitude_score(WEIGHT).dense().tolist() == [[1, 2, 3, 4]]


def test_mask_ignores_the_scale_of_the_inputs_and_the_signs_of_the_weights():
    weight, inputs = random_case()
    expected = mask(weight, inputs)
    signs = torch.where(torch.rand(weight.shape) < 0.5, -1.0, 1.0)
    for scale in (0.25, 1024.0, 1e-6):
        assert torch.equal(mask(weight * signs, inputs * scale), expected)


def test_mask_moves_with_a_permutation_of_the_inputs():
    weight, inputs = random_case()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    assert torch.equal(mask(weight[:, order], inputs[:, order]), mask(weight, inputs)[:, order])


def test_equal_norms_give_the_magnitude_mask_of_each_row():
    weight, _ = random_case()
    signs = torch.where(torch.rand(50, 20) < 0.5, -2.0, 2.0)
    assert torch.equal(mask(weight, signs), keep_mask(magnitude_score(weight), Unstructured(0.5)))


def test_norms_matter():
    weight, inputs = random_case()
    assert not torch.equal(
        mask(weight, inputs), keep_mask(magnitude_score(weight), Unstructured(0.5))
    )
