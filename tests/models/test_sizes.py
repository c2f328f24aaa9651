"""How many units a sparsity removes, which shapes a model can take, and shapes of one sparsity."""

import itertools
import re

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.tiny_models import tiny

from prunebook import prune
from prunebook.errors import UserError
from prunebook.models.anatomy import find_stack, sublayers
from prunebook.models.sizes import (
    block_parameters,
    blocks_to_remove,
    candidates,
    count_channels,
    top_k,
    units_of_ratio,
    units_of_sparsity,
)
from prunebook.models.surgery import (
    keep_neurons,
    sync_config,
)


def test_a_number_of_channels(make_model):
    config = make_model("llama").config
    assert [count_channels(config, s) for s in (0.125, 0.2, 0.5, 0.87)] == [28, 24, 16, 4]
    for sparsity, nearest in ((0.01, "0.1250"), (0.99, "0.8750")):
        with pytest.raises(
            UserError, match=rf"of 32 hidden channels, 4 at a time: the nearest is {nearest}"
        ):
            count_channels(config, sparsity)
        assert 0 < count_channels(config, float(nearest)) < 32


def test_a_number_of_blocks():
    assert blocks_to_remove(10, 3, None, 9) == 3
    assert [blocks_to_remove(10, None, sparsity, 9) for sparsity in (0.1, 0.19, 0.3, 0.9)] == [
        1,
        1,
        3,
        9,
    ]
    with pytest.raises(
        UserError, match="less than one of 10 blocks; the nearest is remove_blocks=1"
    ):
        blocks_to_remove(10, None, 0.09, 9)
    with pytest.raises(
        UserError, match="10 of 10 blocks cannot go; the nearest is remove_blocks=9"
    ):
        blocks_to_remove(10, 10, None, 9)


def test_of_equal_scores_the_lowest_index_goes_first():
    assert top_k(torch.tensor([1.0, 3, 2, 2, 0]), 2) == [1, 3]
    assert top_k(torch.tensor([1.0, 1, 1]), 2) == [1, 2]
    assert top_k(torch.tensor([1.0, 2]), 2) == [0, 1]


def like_smollm2(blocks=1):
    """The block of SmolLM2-135M, without memory: 9 heads of 64 over 3 key-value heads, 1536
    neurons."""
    with torch.device("meta"):
        return transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=4,
                hidden_size=576,
                intermediate_size=1536,
                num_hidden_layers=blocks,
                num_attention_heads=9,
                num_key_value_heads=3,
                head_dim=64,
                tie_word_embeddings=True,
            )
        )


@pytest.mark.parametrize(
    ("ratio", "units"),
    [(0.25, (0, 384)), (1 / 3, (1, 512)), (0.5, (1, 768)), (2 / 3, (2, 1024)), (0.327, (0, 503))],
)
def test_units_of_a_ratio_are_rounded_as_published(ratio, units):
    assert units_of_ratio(like_smollm2().model.layers, ratio) == units


@settings(deadline=None, max_examples=60)
@given(ratio=st.floats(0.0001, 0.9999))
def test_a_ratio_is_met_or_one_in_the_range_named_is(ratio):
    blocks = like_smollm2().model.layers
    try:
        heads, neurons = units_of_ratio(blocks, ratio)
    except UserError as error:
        low, high = map(float, re.search(r"are (\S+) to (\S+)$", str(error)).groups())
        assert not low <= ratio <= high
        for bound in (low, high):
            units_of_ratio(blocks, bound)
        return
    assert 0 <= heads < 3
    assert 0 <= neurons - 1536 * ratio < 1 + 1e-6
    assert heads == int((192 - int(192 * (1 - ratio) + 1e-9)) / 64)


SHAPES = st.fixed_dictionaries(
    {
        "heads": st.sampled_from([(1, 1), (4, 1), (4, 2), (4, 4), (6, 2), (9, 3)]),
        "head_dim": st.sampled_from([2, 8]),
        "neurons": st.integers(2, 60),
        "biased": st.booleans(),
        "blocks": st.integers(1, 4),
        "spared": st.integers(0, 3),
    }
)


@settings(deadline=None, max_examples=80)
@given(shape=SHAPES, sparsity=st.floats(0.0005, 0.999), with_heads=st.booleans())
def test_a_sparsity_is_met_to_the_nearest_neuron_or_the_nearest_is_named(
    shape, sparsity, with_heads
):
    (heads, groups), head_dim = shape["heads"], shape["head_dim"]
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=4,
                hidden_size=36,
                intermediate_size=shape["neurons"],
                num_hidden_layers=shape["blocks"],
                num_attention_heads=heads,
                num_key_value_heads=groups,
                head_dim=head_dim,
                attention_bias=shape["biased"],
                mlp_bias=shape["biased"],
            )
        )
    blocks = list(model.model.layers)[min(shape["spared"], shape["blocks"] - 1) :]
    total = block_parameters(model)
    of_head, of_neuron = sublayers(blocks[0]).group_sizes()
    try:
        gone, neurons = units_of_sparsity(model, blocks, sparsity, with_heads)
    except UserError as error:
        nearest = float(re.search(r"the nearest is (\S+)$", str(error))[1])
        gone, neurons = units_of_sparsity(model, blocks, nearest, with_heads)  # which is accepted
        every = range(groups if with_heads else 1), range(shape["neurons"])
        others = [g * of_head + n * of_neuron for g, n in itertools.product(*every) if g + n]
        need = sparsity * total / len(blocks)
        offered = abs(gone * of_head + neurons * of_neuron - need)
        assert offered <= min(abs(size - need) for size in others) + of_neuron / 2
        return
    assert 0 <= gone < groups
    assert with_heads or not gone
    assert 0 <= neurons < shape["neurons"]
    assert gone + neurons > 0
    removed = len(blocks) * (gone * of_head + neurons * of_neuron)
    assert abs(removed - sparsity * total) <= len(blocks) * of_neuron * (0.5 + 1e-6)


def test_units_of_published_sparsities():
    model = like_smollm2()
    for sparsity, heads in ((0.1, 0), (0.3, 0), (0.4, 1), (0.7, 2)):
        assert units_of_sparsity(model, model.model.layers, sparsity)[0] == heads


def test_no_blocks_or_unlike_ones_are_refused(make_model):
    model = make_model("llama")
    for count in (
        lambda blocks: units_of_sparsity(model, blocks, 0.2),
        lambda blocks: units_of_ratio(blocks, 0.2),
    ):
        with pytest.raises(UserError, match="all blocks are spared; spare fewer"):
            count(model.model.layers[3:])
    keep_neurons(sublayers(model.model.layers[0]), range(5))
    for count in (
        lambda blocks: units_of_sparsity(model, blocks, 0.2),
        lambda blocks: units_of_ratio(blocks, 0.2),
    ):
        with pytest.raises(UserError, match="the blocks differ in heads or neurons; trim"):
            count(model.model.layers)
        count(model.model.layers[1:])


def test_a_ratio_of_all_is_refused_with_what_is_possible(make_model):
    blocks = find_stack(make_model("llama"))[1]
    with pytest.raises(
        UserError,
        match=r"ratio 0.99 of 2 key-value heads and 48 neurons takes 2 and 48; the nearest",
    ):
        units_of_ratio(blocks, 0.99)


def test_a_sparsity_out_of_reach_is_refused_with_the_nearest(make_model):
    model = make_model("llama")
    with pytest.raises(
        UserError,
        match=r"sparsity 0.9 cannot be met by heads and neurons of 1 blocks, .* is 0\.\d{4}$",
    ):
        units_of_sparsity(model, model.model.layers[:1], 0.9)
    with pytest.raises(
        UserError, match=r"sparsity 0.001 cannot be met by .* the nearest is 0\.0042$"
    ):
        units_of_sparsity(model, model.model.layers[:1], 0.001)


@pytest.mark.parametrize(
    ("family", "axes"),
    [
        ("llama", {"neurons": (20, 30, 48), "heads": (4, 8), "hidden": (24, 32), "blocks": (2, 3)}),
        ("qwen3", {"hidden": (16, 24), "blocks": (1, 3)}),
        ("opt", {"neurons": (20, 64), "blocks": (2, 3)}),
    ],
)
def test_candidates_lose_what_really_pruned_models_lose(make_model, tokens, family, axes):
    changes = {} if family == "opt" else {"num_attention_heads": 8, "head_dim": 4}
    model = make_model(family, **changes)
    parameters = [parameter.clone() for parameter in model.parameters()]
    shapes = candidates(model, 0.5, axes, tolerance=2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), parameters, strict=True))
    assert len(shapes) == len(list(itertools.product(*axes.values())))
    for shape in shapes:
        sizes = {f"keep_{axis}": size for axis, size in shape.items() if axis != "gone"}
        small = make_model(family, **changes)
        assert shape["gone"] == pytest.approx(
            prune(small, "minitron", calibration=tokens, **sizes).sparsity, abs=1e-12
        )
    distances = [abs(shape["gone"] - 0.5) for shape in shapes]
    assert distances == sorted(distances)


def test_equally_near_candidates_stay_in_the_order_asked(make_model):
    shapes = candidates(make_model("llama"), 0.5, {"blocks": [2, 1], "neurons": [48]}, tolerance=1)
    assert [(shape["blocks"], shape["gone"]) for shape in shapes] == [
        (2, pytest.approx(1 / 3)),
        (1, pytest.approx(2 / 3)),
    ]


def test_candidates_of_a_configuration_that_has_no_head_size(make_model):
    model = make_model("qwen2")
    del model.config.head_dim  # then it is the width over the heads
    assert candidates(model, 0.2, {"neurons": [24]}, tolerance=1)
    with pytest.raises(
        UserError, match=re.escape("the configuration of Qwen2ForCausalLM cannot say {'heads': 2}")
    ):
        candidates(model, 0.2, {"heads": [2]})


def test_candidates_of_heads_that_cannot_go_are_refused():
    with pytest.raises(
        UserError, match="Olmo2Attention cannot lose heads: its q_norm is over all of them"
    ):
        candidates(tiny("Olmo2"), 0.2, {"heads": [2]})


def test_candidates_of_uneven_blocks_are_refused(make_model, tokens):
    model = make_model("llama")
    keep_neurons(sublayers(model.model.layers[1]), range(10))
    sync_config(model)
    with pytest.raises(UserError, match="the blocks differ in heads or neurons"):
        candidates(model, 0.2, {"neurons": [8]})
    with pytest.raises(UserError, match=re.escape("cannot say {'blocks': 2} of this model")):
        candidates(model, 0.2, {"blocks": [2]})


def test_candidates_within_the_tolerance_alone(make_model):
    model = make_model("llama")
    axes = {"neurons": tuple(range(8, 49))}
    every = candidates(model, 0.25, axes, tolerance=10)
    some = candidates(model, 0.25, axes, tolerance=0.04)
    assert some == [shape for shape in every if abs(shape["gone"] - 0.25) <= 0.03]
    assert 0 < len(some) < len(every)


@pytest.mark.parametrize(
    ("family", "axes", "message"),
    [
        ("llama", {"width": [10]}, "axes width are unknown; use neurons, heads, hidden, blocks"),
        ("llama", {"heads": [3]}, "heads 3 do not divide among 2 key-value heads; nearest: 4"),
        ("llama", {"hidden": [30]}, "30 hidden channels do not divide among 4 heads"),
        ("llama", {"blocks": [0]}, "blocks 0 of 3 cannot stay; use 1 to 3"),
        ("opt", {"hidden": [16]}, "OPTForCausalLM cannot lose hidden channels"),
        ("gpt2", {"neurons": [8]}, "GPT2Block has no heads and neurons that can be told apart"),
    ],
)
def test_candidates_that_cannot_be(make_model, family, axes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        candidates(make_model(family), 0.2, axes)
