"""What a model becomes: which layers are replaced, what norms leave behind, packing, refusals."""

import copy
import re

import pytest
import torch
from tests.passes.families import every_family
from tests.random_tensors import normal
from tests.refusals import refused_in_one_line
from tests.whole_models import greedy, logits
from transformers.pytorch_utils import Conv1D

from prunebook.errors import UserError
from prunebook.measure.zeros import count_zeros
from prunebook.models.anatomy import find_blocks
from prunebook.models.config import TERNARY
from prunebook.models.ternary import pack, rebuild, replace_linears
from prunebook.models.ternary_linears import BitLinear, PackedBitLinear, absmean_ternary


@every_family
def test_every_linear_of_the_blocks_is_replaced_and_nothing_else(make_model, tokens, family):
    model = make_model(family)
    before = copy.deepcopy(model)
    count = len(count_zeros(model))
    replace_linears(model, norm=False)
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, BitLinear)
    }
    assert set(layers) == {name for block in find_blocks(model) for name in block.linears}
    assert len(layers) == count
    assert not any(isinstance(module, Conv1D) for module in model.modules())
    for name, old in before.named_parameters():
        new = model.get_parameter(name)
        assert torch.equal(
            new, old if new.shape == old.shape and torch.equal(new, old) else old.T
        ), name
    assert all(layer.norm_eps is None and not layer.training for layer in layers.values())
    assert not torch.equal(logits(model, tokens), logits(before, tokens))
    zeros = {
        name: int((absmean_ternary(layer.weight)[0] == 0).sum()) for name, layer in layers.items()
    }
    assert {name: count for name, (count, _) in count_zeros(model).items()} == zeros
    assert 0.2 < sum(zeros.values()) / sum(size for _, size in count_zeros(model).values()) < 0.4


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_norms_that_go_leave_their_gains_in_the_weights(make_model, tokens, monkeypatch, family):
    """Without rounding, and without norms in `o_proj` and `down_proj`, the model is what it was."""
    model = make_model(family)
    for block in model.model.layers:
        block.input_layernorm.weight.data = normal(32, seed=1).abs() + 0.5
        block.post_attention_layernorm.weight.data = normal(32, seed=2).abs() + 0.5
    expected = logits(model, tokens)
    replace_linears(model, norm=True)
    for block in model.model.layers:
        assert isinstance(block.input_layernorm, torch.nn.Identity)
        block.self_attn.o_proj.norm_eps = block.mlp.down_proj.norm_eps = None
    monkeypatch.setattr(
        "prunebook.models.ternary_linears.absmax_int8", lambda x: (x, torch.ones(()))
    )
    monkeypatch.setattr(
        "prunebook.models.ternary_linears.absmean_ternary", lambda w: (w, torch.ones(()))
    )
    torch.testing.assert_close(logits(model, tokens), expected, rtol=1e-3, atol=1e-3)


def test_a_packed_model_gives_equal_logits(make_model, tokens):
    model = make_model("llama")
    replace_linears(model, norm=True)
    small = copy.deepcopy(model)
    pack(small)
    assert torch.equal(logits(small, tokens), logits(model, tokens))
    assert sum(isinstance(module, PackedBitLinear) for module in small.modules()) == 21
    assert getattr(small.config, TERNARY) == {"norm": True, "packed": True}
    assert getattr(model.config, TERNARY) == {"norm": True, "packed": False}
    prompt = tokens[:2, :5]
    assert torch.equal(greedy(small, prompt), greedy(model, prompt))


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (
            "opt",
            "not possible for OPTDecoderLayer, whose norms are self_attn_layer_norm, "
            "final_layer_norm; use norm",
        ),
        (
            "gpt2",
            "norm=True is not possible for GPT2Block, whose norms are ln_1, ln_2; use norm=False",
        ),
    ],
)
def test_norms_of_another_kind_are_refused_before_anything_changes(make_model, family, message):
    model = make_model(family)
    before = str(model)
    with refused_in_one_line(re.escape(message)):
        replace_linears(model, norm=True)
    assert str(model) == before


def test_what_is_ternary_or_is_not_is_told(make_model):
    model = make_model("llama")
    with pytest.raises(
        UserError, match="LlamaForCausalLM has no ternary layers to pack; prune it with bitnet-b158"
    ):
        pack(model)
    replace_linears(model, norm=False)
    with pytest.raises(
        UserError, match="LlamaForCausalLM has ternary layers already; load the model again"
    ):
        replace_linears(model, norm=False)
    setattr(model.config, TERNARY, {"norm": False})
    with pytest.raises(
        ValueError, match=r"prunebook_ternary in config\.json must hold norm and packed"
    ):
        rebuild(model)
