"""What is found in a model: blocks, linears, heads and neurons, norms; what is refused."""

import pytest
import transformers
from tests.passes.families import LIKE_LLAMA, LINEARS, every_family
from torch import nn

from prunebook.errors import UserError
from prunebook.models.anatomy import all_sublayers, find_blocks, linears_of, norms, weight_of
from prunebook.models.sizes import block_parameters
from prunebook.models.surgery import keep_heads, keep_neurons, remove_neurons


@every_family
def test_blocks_and_their_linears_are_found(make_model, family):
    model = make_model(family)
    stack, names = LINEARS[family]
    blocks = find_blocks(model)
    assert [block.index for block in blocks] == [0, 1, 2]
    for block in blocks:
        assert sorted(block.linears) == sorted(f"{stack}.{block.index}.{name}" for name in names)
        for name, linear in block.linears.items():
            assert model.get_submodule(name) is linear
        assert block.module is model.get_submodule(f"{stack}.{block.index}")


@pytest.mark.parametrize("model", [nn.Linear(3, 3), nn.ModuleList([nn.Linear(2, 2)])])
def test_a_model_without_blocks_is_refused(model):
    with pytest.raises(UserError, match="has no recognisable decoder blocks"):
        find_blocks(model)


def test_a_stack_of_another_length_is_no_stack_of_blocks(make_model):
    model = make_model("llama")
    model.config.num_hidden_layers = 4
    with pytest.raises(UserError, match="num_hidden_layers=4"):
        find_blocks(model)


def test_weight_of_is_out_by_in_and_written_in_place(make_model):
    linear = find_blocks(make_model("gpt2"))[0].linears["transformer.h.0.mlp.c_fc"]
    weight = weight_of(linear)
    assert weight.shape == (128, 32)
    weight[5, 7] = 42
    assert linear.weight[7, 5].item() == 42
    llama = find_blocks(make_model("llama"))[0].linears["model.layers.0.mlp.up_proj"]
    weight_of(llama)[1, 2] = 42
    assert llama.weight[1, 2].item() == 42


def test_fused_experts_are_refused_and_not_left_dense():
    config = transformers.MixtralConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    with pytest.raises(
        UserError, match=r"model\.layers\.0\.mlp\.experts\.\w+ \[4, \d+, \d+\] holds the experts"
    ):
        find_blocks(transformers.AutoModelForCausalLM.from_config(config))


@pytest.mark.parametrize("family", [*LIKE_LLAMA, "opt"])
def test_group_sizes_are_what_goes(make_model, family):
    model = make_model(family)
    parts = all_sublayers(model)[1]
    of_head, of_neuron = parts.group_sizes()
    sizes = [block_parameters(model)]
    per_group = parts.heads // parts.kv_heads
    keep_heads(parts, range(per_group, parts.heads))
    sizes.append(block_parameters(model))
    keep_neurons(parts, range(1, parts.neurons))
    sizes.append(block_parameters(model))
    assert (sizes[0] - sizes[1], sizes[1] - sizes[2]) == (of_head, of_neuron)


def test_fused_projections_are_refused(make_model):
    with pytest.raises(
        UserError,
        match="GPT2Block has no heads and neurons that can be told apart: linears such as",
    ):
        all_sublayers(make_model("gpt2"))


def test_the_norms_are_those_over_hidden_channels(make_model):
    for family, count in (("llama", 7), ("qwen3", 7), ("opt", 7)):
        assert len(norms(make_model(family))) == count
    assert len(norms(make_model("qwen3", head_dim=32))) == 7


def test_flops_of_a_group_by_hand(make_model):
    """32 channels, heads of 8, two query heads to a key-value head, 5 tokens: 4 products of queries
    and outputs, 2 of keys and values, and two products of each of 2 heads over 25 pairs."""
    parts = all_sublayers(make_model("llama"))[0]
    head = 2 * 5 * 32 * 8 * (2 + 2 + 2) + 2 * (2 * 25 * 8) * 2
    assert parts.group_flops(5) == (head, 2 * 5 * 32 * 3)


def test_linears_without_weights_are_not_those_of_a_block(make_model):
    model = make_model("llama")
    remove_neurons(all_sublayers(model)[1])
    assert [len(block.linears) for block in find_blocks(model)] == [7, 4, 7]
    assert len(linears_of("x.", model.model.layers[1])) == 7
