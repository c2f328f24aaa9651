"""The budget of a whole model: its expected size against the outer product, and masks that meet
it."""

import pytest
import torch

from prunebook.errors import UserError
from prunebook.methods.compresso.size_budget import SizeBudget
from prunebook.models.anatomy import all_sublayers
from prunebook.models.sizes import block_parameters
from prunebook.sparsity.structured_masks import cut, mask_shapes

AXES = ("heads", "neurons", "hidden")


def draws(model, seed=0, dtype=torch.float32):
    """Random log alpha by axis."""
    generator = torch.Generator().manual_seed(seed)
    shapes = mask_shapes(model)
    return {axis: 2 * torch.randn(shapes[axis], generator=generator, dtype=dtype) for axis in AXES}


def test_the_expected_size_is_that_of_the_outer_product_over_all_weights(make_model):
    model = make_model("llama")
    kept = {axis: x.sigmoid() for axis, x in draws(model, dtype=torch.float64).items()}
    budget = SizeBudget(model, 0.3)
    hidden = kept["hidden"]
    left = torch.tensor(0.0, dtype=torch.float64)
    for index, parts in enumerate(all_sublayers(model)):
        keys = kept["heads"][index].repeat_interleave(parts.head_dim)
        queries = kept["heads"][index].repeat_interleave(parts.repeats * parts.head_dim)
        # matrices with these inside
        for inner, count in ((queries, 2), (keys, 2), (kept["neurons"][index], 3)):
            left += count * torch.outer(inner, hidden).sum()
        left += 2 * hidden.sum()  # norms
    expected = 1 - left / block_parameters(model)
    assert budget.removed(kept).item() == pytest.approx(expected.item(), abs=1e-12)
    single = budget.removed({axis: p.float() for axis, p in kept.items()})
    assert single.dtype is torch.float32
    assert single.item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("family", ["llama", "qwen2", "opt"])
@pytest.mark.parametrize("sparsity", [0.1, 0.35, 0.6])
def test_masks_meet_the_budget_to_half_a_neuron(make_model, family, sparsity):
    model = make_model(family)
    budget = SizeBudget(model, sparsity)
    log_alpha = draws(model)
    del log_alpha["hidden"]
    masks = budget.choose(log_alpha)
    before = block_parameters(model)
    cut(model, masks)
    gone = 1 - block_parameters(model) / before
    assert abs(gone - sparsity) * before <= budget.groups["neurons"] / 2
    assert gone == pytest.approx(budget.removed(masks).item(), abs=1e-6)
    assert all(masks[axis].any(1).all() for axis in masks)


@pytest.mark.parametrize("sparsity", [0.1, 0.35, 0.6])
def test_hidden_channels_are_counted_first_and_the_rest_makes_up(make_model, sparsity):
    model = make_model("llama")
    budget = SizeBudget(model, sparsity)
    log_alpha = draws(model)
    masks = budget.choose(log_alpha)
    before = block_parameters(model)
    assert masks["hidden"].sum() % 4 == 0
    assert masks["hidden"].sum() >= 32 * (1 - sparsity)
    cut(model, masks)
    assert (
        abs(1 - block_parameters(model) / before - sparsity) * before
        <= budget.groups["neurons"] / 2
    )


def test_the_lowest_of_all_blocks_go_and_the_highest_of_each_stays(make_model):
    model = make_model("llama")
    heads = torch.full((3, 2), 999.0)
    neurons = torch.arange(144.0).view(3, 48)
    budget = SizeBudget(model, 60 * 96 / block_parameters(model))
    masks = budget.choose({"heads": heads, "neurons": neurons})
    assert masks["heads"].all()
    # 47 of the first block and 13 of the second
    assert masks["neurons"].sum(1).tolist() == [1, 35, 48]
    heads[2, 0] = -1.0  # a head with its query heads is 16 neurons
    masks = budget.choose({"heads": heads, "neurons": neurons})
    assert masks["heads"].tolist() == [[True, True], [True, True], [False, True]]
    assert masks["neurons"].sum(1).tolist() == [4, 48, 48]
    small = SizeBudget(model, 7 * 96 / block_parameters(model))
    masks = small.choose({"heads": heads, "neurons": neurons})
    assert masks["heads"].all()  # too large for the budget
    assert masks["neurons"].sum(1).tolist() == [41, 48, 48]


def test_ties_go_by_index_in_all_blocks_alike(make_model):
    model = make_model("llama")
    equal = {"heads": torch.ones(3, 2), "neurons": torch.zeros(3, 48)}
    masks = SizeBudget(model, 4 * 96 / block_parameters(model)).choose(equal)
    assert [(~row).nonzero().flatten().tolist() for row in masks["neurons"]] == [[0, 1], [0], [0]]


def test_what_cannot_be_met_is_refused(make_model):
    model = make_model("llama")
    with pytest.raises(
        UserError,
        match=r"sparsity 0\.9 would take the last head or neuron of a block; use 0\.\d+ or",
    ):
        SizeBudget(model, 0.9)
    with pytest.raises(UserError, match="no heads and neurons"):
        SizeBudget(make_model("gpt2"), 0.2)
    masks = SizeBudget(model, 0.2).choose(
        {axis: x for axis, x in draws(model).items() if axis != "hidden"}
    )
    cut(model, masks)
    with pytest.raises(UserError, match="the blocks differ in heads or neurons"):
        SizeBudget(model, 0.2)
