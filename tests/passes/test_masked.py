"""A model under masks: it is the one that is cut, nothing is left behind, and bad input."""

import copy
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.random_masks import AXES, SHAPE, masks_of
from tests.refusals import refused_in_one_line
from tests.whole_models import logits

from prunebook.models.anatomy import all_sublayers
from prunebook.passes.masked import cut_difference, masked
from prunebook.sparsity.structured_masks import cut, mask_shapes


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("axes", [*((axis,) for axis in AXES), AXES])
@pytest.mark.parametrize(
    ("family", "tied"), [("llama", True), ("llama", False), ("qwen3", True), ("mistral", False)]
)
def test_the_masked_model_is_the_one_that_is_cut(make_model, tokens, family, tied, axes):
    model = make_model(family, tie_word_embeddings=tied)
    masks = masks_of(model, {axis: SHAPE[axis] for axis in axes})
    dense = logits(model, tokens)
    with masked(model, masks):
        wanted = logits(model, tokens)
    assert (wanted - dense).abs().max() > 0.1
    cut(model, masks)
    torch.testing.assert_close(logits(model, tokens), wanted, atol=1e-4, rtol=0)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 48),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_whatever_the_masks(make_model, tokens, blocks, groups, neurons, hidden, tied, seed):
    model = make_model(
        "llama",
        seed % 7,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=4,
        tie_word_embeddings=tied,
    )
    counts = {"blocks": blocks, "heads": groups, "neurons": neurons, "hidden": hidden * 2 * groups}
    masks = masks_of(model, counts, seed)
    with masked(model, masks):
        wanted = logits(model, tokens)
    cut(model, masks)
    torch.testing.assert_close(logits(model, tokens), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("axes", [("heads", "neurons"), AXES])
@pytest.mark.parametrize("family", ["llama", "qwen3", "opt"])
def test_in_float64_no_difference_is_left(make_model, tokens, family, axes):
    axes = [axis for axis in axes if family != "opt" or axis != "hidden"]  # a norm with a mean
    model = make_model(family)
    masks = masks_of(model, {axis: SHAPE[axis] for axis in axes})
    before = logits(model, tokens)
    difference, largest = cut_difference(model, masks, tokens)
    assert difference < 1e-12 < largest
    assert cut_difference(model, masks, tokens, torch.float32)[1] == pytest.approx(
        largest, rel=1e-4
    )
    assert torch.equal(logits(model, tokens), before)  # the model itself stays as it was


def test_a_group_goes_with_all_query_heads_that_read_it(make_model, tokens):
    # four query heads to each of two
    model = make_model("llama", num_attention_heads=8, head_dim=4)
    masks = {"heads": torch.tensor([[True, False]] * 3)}
    silent = copy.deepcopy(model)
    for parts in all_sublayers(silent):
        parts.out.weight.data[:, 16:] = 0
    with masked(model, masks):
        torch.testing.assert_close(logits(model, tokens), logits(silent, tokens))


def test_a_norm_counts_only_the_channels_that_stay(make_model):
    model = make_model("llama")
    norm = model.model.norm
    x = torch.randn(2, 5, 32)
    norm.weight.data = torch.rand(32) + 0.5
    mask = torch.rand(32)
    mask[::4] = 0
    with masked(model, {"hidden": mask}):
        found = norm(x)
    kept = mask != 0
    mean_square = x[..., kept].square().mean(-1, keepdim=True)
    expected = norm.weight * mask * x / (mean_square + norm.variance_epsilon).sqrt()
    torch.testing.assert_close(found, expected)


def test_masks_of_ones_change_nothing_and_leave_no_hooks(make_model, tokens):
    model = make_model("llama")
    before = logits(make_model("llama"), tokens)
    ones = {axis: torch.ones(shape) for axis, shape in mask_shapes(model).items()}
    with masked(model, ones):
        assert hooks(model) > 0
        torch.testing.assert_close(logits(model, tokens), before, atol=1e-5, rtol=0)
    assert hooks(model) == 0
    with pytest.raises(RuntimeError, match="broken off"), masked(model, ones):
        raise RuntimeError("broken off")
    assert hooks(model) == 0
    assert torch.equal(logits(model, tokens), before)


def test_gradients_reach_every_mask(make_model, tokens):
    """Against differences: masks between 0 and 1 scale what the module's docstring says."""
    model = make_model("llama").double().requires_grad_(False)
    masks = {
        axis: torch.full(shape, 0.7, dtype=torch.float64)
        for axis, shape in mask_shapes(model).items()
    }

    def loss_of(masks):
        with masked(model, masks):
            return model(input_ids=tokens[:1]).logits.square().mean()

    trained = {axis: mask.clone().requires_grad_() for axis, mask in masks.items()}
    loss_of(trained).backward()
    for axis in AXES:
        step = torch.zeros_like(masks[axis])
        step.view(-1)[1] = 1e-2  # norms round masks to float32, too coarse for smaller differences
        slope = (
            loss_of(masks | {axis: masks[axis] + step})
            - loss_of(masks | {axis: masks[axis] - step})
        ) / 2e-2
        assert trained[axis].grad.view(-1)[1].item() == pytest.approx(slope.item(), rel=0.02)


@pytest.mark.parametrize(
    ("family", "masks", "message"),
    [
        (
            "llama",
            {"heads": torch.ones(3, 4)},
            "mask heads [3, 4] does not fit the model; it takes blocks [3], heads",
        ),
        ("llama", {"experts": torch.ones(3)}, "mask experts [3] does not fit the model"),
        (
            "opt",
            {"hidden": torch.ones(32)},
            "hidden masks need norms as Llama's, without a mean; OPTForCausalLM has",
        ),
        (
            "gpt2",
            {"blocks": torch.ones(3)},
            "GPT2Block has no heads and neurons that can be told apart",
        ),
    ],
)
def test_masks_that_do_not_fit(make_model, family, masks, message):
    model = make_model(family)
    with refused_in_one_line(re.escape(message)), masked(model, masks):
        pass
    assert hooks(model) == 0
