"""Masks cut out of a model: what is left saves and reloads; shapes and bad input."""

import re

import pytest
import torch
import transformers
from tests.random_masks import SHAPE, masks_of
from tests.whole_models import logits

from prunebook.errors import UserError
from prunebook.models.anatomy import all_sublayers
from prunebook.models.loading import load_model, save_model
from prunebook.passes.masked import masked
from prunebook.sparsity.structured_masks import check_shape, cut


def test_blocks_may_be_left_different(make_model, word_tokenizer, tokens, tmp_path):
    model = make_model("llama")
    masks = masks_of(model, {"neurons": 30})
    masks["neurons"][0, masks["neurons"][0].nonzero()[0]] = False
    masks["heads"] = torch.tensor([[True, True], [True, False], [False, True]])
    with masked(model, masks):
        wanted = logits(model, tokens)
    cut(model, masks)
    assert [(parts.heads, parts.neurons) for parts in all_sublayers(model)] == [
        (4, 29),
        (2, 30),
        (2, 30),
    ]
    again, _ = load_model(save_model(model, word_tokenizer, tmp_path / "small"), device="cpu")
    torch.testing.assert_close(logits(again, tokens), wanted, atol=1e-4, rtol=0)


def test_a_cut_model_is_an_ordinary_one(make_model, word_tokenizer, tokens, tmp_path):
    model = make_model("llama")
    cut(model, masks_of(model, SHAPE))
    save_model(model, word_tokenizer, tmp_path / "small")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    assert torch.equal(logits(again, tokens), logits(model, tokens))


def test_soft_masks_cannot_be_cut(make_model):
    with pytest.raises(
        UserError, match=re.escape("mask blocks is torch.float32; only bool masks can be cut out")
    ):
        cut(make_model("llama"), {"blocks": torch.ones(3)})


def test_blocks_whose_norms_come_after_the_sum_are_refused(make_model):
    model = make_model("opt", do_layer_norm_before=False)
    with pytest.raises(UserError, match="norms the sum with what a block adds"):
        cut(model, {"blocks": torch.tensor([True, False, True])})


def test_shapes_go_by_whole_key_value_heads(make_model):
    model = make_model("llama", num_attention_heads=6, num_key_value_heads=3, hidden_size=48)
    full = {"blocks": 3, "heads": 6, "neurons": 48, "hidden": 48}
    # 44 is no multiple of the former 6
    assert check_shape(model, {"heads": 4, "hidden": 44}) == full
    for sizes, message in (
        ({"heads": 3}, "heads 3 are no whole key-value heads, read by 2 each; nearest: 4"),
        ({"heads": 8}, "heads 8 of 6 cannot stay; use 1 to 6"),
        (
            {"hidden": 44},
            "44 hidden channels do not divide among 6 heads, which the configuration asks for;",
        ),
        ({"neurons": 49}, "neurons 49 of 48 cannot stay; use 1 to 48"),
        ({"blocks": 0}, "blocks 0 of 3 cannot stay; use 1 to 3"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            check_shape(model, sizes)
    cut(model, {"neurons": torch.arange(48) < torch.tensor([[48], [48], [9]])})
    with pytest.raises(UserError, match="the blocks differ in heads or neurons"):
        check_shape(model, {"hidden": 36})
