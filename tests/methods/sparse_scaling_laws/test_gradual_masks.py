"""The ramp of gradual magnitude pruning, and what it removes, by hand."""

import pytest
import torch

from prunebook.methods.sparse_scaling_laws.gradual_masks import GradualMasks, Ramp, removed_weights
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.sparsity.patterns import NofM, Unstructured

HALF = Unstructured(0.5, "layer")


def test_the_ramp_by_hand():
    ramp = Ramp(0.25, 0.75, 5)
    shares = [ramp.share(step, 40) for step in (0, 10, 15, 20, 30, 40)]
    assert shares == [0, 0, 1 - 0.75**3, 1 - 0.5**3, 1, 1]
    assert [step for step in range(41) if ramp.chooses_at(step, 40)] == [14, 18, 22, 26, 30]
    fine = [ramp.share(step, 100000) for step in range(25000, 75000)]
    assert sum(fine) / len(fine) == pytest.approx(0.75, abs=1e-4)
    often = Ramp(0.25, 0.75, 50)
    assert sum(often.chooses_at(step, 1000) for step in range(1001)) == 50


@pytest.mark.parametrize(
    ("start", "end", "at"), [(0.5, 0.5, [20]), (1.0, 1.0, [40]), (0.0, 0.0, [0])]
)
def test_without_a_ramp_masks_are_chosen_once(start, end, at):
    ramp = Ramp(start, end, 50)
    assert [step for step in range(41) if ramp.chooses_at(step, 40)] == at


def test_one_matrix_by_hand():
    weight = torch.tensor([[-5.0, 1, 0.5, 4], [0.25, -0.5, 8, 9]])
    in_the_end = removed_weights(weight, HALF)
    assert in_the_end.tolist() == [[False, True, True, False], [True, True, False, False]]
    half_way = removed_weights(weight, HALF, 0.5)
    assert half_way.tolist() == [[False, False, True, False], [True, False, False, False]]
    # 1:2 keeps -5, 4, -0.5 and 9 in the end, though 1 and 8 are larger than -0.5
    on_the_way = removed_weights(weight, NofM(1, 2), 0.5)
    assert on_the_way.tolist() == [[False, False, True, False], [True, False, False, False]]
    assert removed_weights(weight, NofM(1, 2)).tolist() == [
        [False, True, True, False],
        [True, False, True, False],
    ]


def test_masks_are_chosen_on_the_ramp_and_kept_between(make_model):
    model = make_model("llama")
    # The ramp is one step wide: nothing goes before step 2, all of it from then on.
    masks = GradualMasks(model, HALF, Ramp(0.5, 0.5, 1), steps=4, embeddings=False)
    linear = next(iter(find_blocks(model)[0].linears.values()))
    zeros = []
    for _ in range(4):
        masks.apply()
        zeros.append((weight_of(linear) == 0).float().mean().item())
        weight_of(linear).data += 1e-3  # the update of a training
    assert zeros == [0, 0, 0.5, 0.5]
