"""Packed 2:4 models: equal logits and tokens, what is packed and what is left, saving, and bad input."""

import copy
import re
import weakref

import pytest
import torch
from torch import nn

import prunebook as pb
from prunebook.bitlinear import replace_linears
from prunebook.blocks import find_blocks, weight_of
from prunebook.compression import SparseLinear, compress, restore
from prunebook.costs import footprint
from prunebook.errors import UserError
from prunebook.models import load_model, save_model
from prunebook.sublayers import COMPRESSED


def logits(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens, use_cache=False).logits


def packed_layers(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, SparseLinear)}


@pytest.fixture
def pruned(make_model):
    """`pruned(family)`: a tiny model that is 2:4 throughout."""

    def make(family="llama", **changes):
        model = make_model(family, **changes)
        pb.prune(model, "magnitude", pattern="2:4")
        return model

    return make


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "opt", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_and_tokens_are_equal(pruned, tokens, family, dtype):
    model = pruned(family).to(dtype)
    dense = copy.deepcopy(model)
    names = {name for block in find_blocks(model) for name in block.linears}
    report = pb.compress(model)
    assert set(report.layers) == set(packed_layers(model)) == names
    assert report.left == {}
    if family == "gpt2":  # Conv1D multiplies the transpose
        torch.testing.assert_close(logits(model, tokens), logits(dense, tokens))
    else:
        assert torch.equal(logits(model, tokens), logits(dense, tokens))
    prompt = tokens[:2, :5]
    written = [one.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0) for one in (model, dense)]
    assert torch.equal(*written)


def test_blocks_of_the_embedded_model_compute_the_same(embedded):
    """Widths of 576 and 1536, and words."""
    model, tokenizer = embedded
    model = copy.deepcopy(model)
    model.model.layers, model.config.num_hidden_layers = model.model.layers[:2], 2
    pb.prune(model, "magnitude", pattern="2:4")
    prompt = tokenizer("The capital of France is", return_tensors="pt").input_ids
    before = logits(model, prompt)
    report = pb.compress(model)
    assert torch.equal(logits(model, prompt), before)
    assert (len(report.layers), report.left, report.bits_per_weight) == (14, {}, 17)


def test_the_report_counts_bytes(pruned):
    model = pruned().bfloat16()
    before = footprint(model, 16, speed=False)
    report = pb.compress(model)
    after = footprint(model, 16, speed=False)
    assert report.layers["model.layers.0.mlp.down_proj"] == (2 * 32 * 48, 32 * 48 + 2 * 32 * 3)
    assert report.bytes_before == sum(size for size, _ in report.layers.values())
    assert report.bytes_after == sum(size for _, size in report.layers.values())
    assert report.bits_per_weight == 9
    assert report.to_dict()["bits_per_weight"] == 9
    assert before.bytes - after.bytes == report.bytes_before - report.bytes_after
    assert after.flops == before.flops


def test_no_dense_weight_stays_in_memory(pruned):
    model = pruned()
    dense = [weakref.ref(linear) for block in find_blocks(model) for linear in block.linears.values()]
    pb.compress(model)
    assert not any(reference() is not None for reference in dense)
    inside = [tensor.numel() for tensor in model.model.layers.parameters()]
    assert max(inside) == 32  # gains of norms
    layer = model.model.layers[0].mlp.down_proj
    assert {name: tuple(one.shape) for name, one in layer.named_buffers()} == {"values": (32, 24), "codes": (32, 3)}
    assert not layer.training


def test_what_is_not_2_4_is_left_and_named(make_model, tokens):
    model = make_model("llama", intermediate_size=46)
    for block in find_blocks(model):
        for name, linear in block.linears.items():
            if "q_proj" in name or "up_proj" in name:
                weight_of(linear).view(-1, 4)[:, 1:3] = 0
    model.model.layers[1].self_attn.q_proj.weight.data[0, :3] = 1.0
    model.model.layers[2].self_attn.q_proj.weight.data[0, 0] = float("nan")
    dense = copy.deepcopy(model)
    report = pb.compress(model)
    assert list(report.layers) == [
        "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj",
        "model.layers.2.mlp.up_proj",
    ]  # fmt: skip
    assert report.left["model.layers.0.self_attn.k_proj"] == "128 of 128 groups hold more than 2 weights other than 0"
    assert report.left["model.layers.1.self_attn.q_proj"] == "1 of 256 groups hold more than 2 weights other than 0"
    assert report.left["model.layers.2.self_attn.q_proj"] == "weights with NaN or infinity"
    assert report.left["model.layers.0.mlp.down_proj"] == "46 inputs are no groups of 4"
    assert len(report.layers) + len(report.left) == 21
    torch.testing.assert_close(logits(model, tokens), logits(dense, tokens), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_model_reloads_with_equal_logits(pruned, word_tokenizer, tokens, tmp_path, family, dtype):
    model, _ = load_model(save_model(pruned(family), word_tokenizer, tmp_path / "dense"), device="cpu", dtype=dtype)
    model.get_submodule(next(iter(find_blocks(model)[0].linears))).weight.data[0] = 1.0  # one that is left
    report = pb.compress(model)
    assert len(report.left) == 1
    expected = logits(model, tokens)
    path = save_model(model, word_tokenizer, tmp_path / "model")
    again, _ = load_model(path, device="cpu", dtype=dtype)
    assert torch.equal(logits(again, tokens), expected)
    assert set(packed_layers(again)) == set(report.layers)
    assert type(again) is type(model)
    third, _ = load_model(save_model(again, word_tokenizer, tmp_path / "again"), device="cpu", dtype=dtype)
    assert torch.equal(logits(third, tokens), expected)


def test_a_state_dict_makes_the_round_trip(pruned, tokens):
    model, other = pruned(), pruned(seed=1)
    for each in (model, other):
        pb.compress(each)
    assert not torch.equal(logits(model, tokens), logits(other, tokens))
    other.load_state_dict(model.state_dict())
    assert torch.equal(logits(model, tokens), logits(other, tokens))


def test_a_linear_with_a_bias_is_packed():
    linear = nn.Linear(24, 7)
    linear.weight.data.view(-1, 4)[:, ::2] = 0
    x = torch.randn(2, 3, 24)
    layer = SparseLinear.pack(linear)
    assert torch.equal(layer(x), linear(x))
    assert str(layer) == "SparseLinear(in_features=24, out_features=7, bias=True)"
    assert set(layer.state_dict()) == {"values", "codes", "bias"}
    assert torch.equal(copy.deepcopy(layer).bfloat16()(x.bfloat16()), linear.bfloat16()(x.bfloat16()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: None, "LlamaForCausalLM has no 2:4 linear in its blocks (model.layers.0.self_attn.q_proj: 25"),
        (lambda model: model.double(), "(model.layers.0.self_attn.q_proj: weights of torch.float64); prune it with"),
        (
            lambda model: replace_linears(model, norm=False),
            "(model.layers.0.self_attn.q_proj: a BitLinear computes with other weights than it holds); prune it",
        ),
    ],
)
def test_a_model_without_2_4_is_refused_and_stays(make_model, change, message):
    model = make_model("llama")
    change(model)
    before = str(model)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        compress(model)
    assert "\n" not in str(caught.value)
    assert str(model) == before
    assert not hasattr(model.config, COMPRESSED)


@pytest.mark.parametrize("again", [compress, lambda model: pb.prune(model, "magnitude", sparsity=0.5), find_blocks])
def test_a_compressed_model_is_for_inference_alone(pruned, again):
    model = pruned()
    model.model.layers[0].self_attn.q_proj.weight.data[0] = 1.0
    pb.compress(model)
    with pytest.raises(UserError, match="LlamaForCausalLM is compressed: its packed linears compute and do"):
        again(model)


@pytest.mark.parametrize("names", ["model.layers.0", ["model.layers.0"], [3], {"model.layers.0.mlp.up_proj": 1}])
def test_an_entry_that_is_none_of_ours_is_refused(make_model, names):
    model = make_model("llama")
    setattr(model.config, COMPRESSED, names)
    with pytest.raises(ValueError, match=r"prunebook_2_4 in config\.json does not name linears of the model"):
        restore(model)
