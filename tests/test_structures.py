"""Whole blocks removed: by hand, in every family, and after saving."""

import pytest
import torch
import transformers

from prunebook.errors import UserError
from prunebook.models import save_model
from prunebook.structures import block_parameters, remove_blocks

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "opt", "gpt2")


def logits(model, tokens, **named):
    with torch.no_grad():
        return model(input_ids=tokens, **named).logits


def silence(block):
    """Let a block add nothing to the residual stream."""
    for name, parameter in block.named_parameters():
        if any(part in name for part in ("o_proj", "down_proj", "out_proj", "fc2", "c_proj")):
            parameter.data.zero_()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_block_that_adds_nothing_can_go_without_a_trace(make_model, tokens, family, index):
    model = make_model(family)
    stack = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3)
    silence(stack[index])
    before, other = logits(model, tokens), [block for i, block in enumerate(stack) if i != index]
    size = block_parameters(model)
    remove_blocks(model, [index])
    assert torch.equal(logits(model, tokens), before)
    assert list(stack) == other
    assert block_parameters(model) == size * 2 // 3
    assert model.config.num_hidden_layers == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_left_saves_reloads_and_generates_with_a_cache(make_model, tokens, word_tokenizer, tmp_path, family):
    model = make_model(family, **({"n_layer": 5} if family == "gpt2" else {"num_hidden_layers": 5}))
    remove_blocks(model, [3, 1, 3])
    save_model(model, word_tokenizer, tmp_path / "cut")
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "cut").eval()
    assert reloaded.config.num_hidden_layers == 3
    assert torch.equal(logits(reloaded, tokens), logits(model, tokens))
    named = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with_cache, without = (reloaded.generate(tokens[:2], use_cache=cached, **named) for cached in (True, False))
    assert torch.equal(with_cache, without)
    assert torch.equal(with_cache, model.generate(tokens[:2], **named))


def test_kinds_of_blocks_go_with_them(make_model):
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    model = make_model("qwen2", layer_types=kinds, use_sliding_window=True, sliding_window=4)
    remove_blocks(model, [0])
    assert model.config.layer_types == kinds[1:]
    assert [block.self_attn.layer_idx for block in model.model.layers] == [0, 1]


@pytest.mark.parametrize(
    ("indices", "message"),
    [([3], "block 3 does not exist; the model has blocks 0 to 2"), ([-1, 0], "block -1 does not exist"),
     ([0, 1, 2], "removing all 3 blocks leaves no model; leave at least one")],
)  # fmt: skip
def test_impossible_blocks_are_refused_and_nothing_changes(make_model, indices, message):
    model = make_model("llama")
    with pytest.raises(UserError, match=message):
        remove_blocks(model, indices)
    assert len(model.model.layers) == model.config.num_hidden_layers == 3
