"""Hidden channels cut out of the whole model: by hand, in every family, after saving."""

import pytest
import torch
import transformers
from tests.models.tiny_models import tiny
from tests.passes.families import LIKE_LLAMA
from tests.whole_models import logits

from prunebook import prune
from prunebook.errors import UserError
from prunebook.models.anatomy import norms, sublayers
from prunebook.models.channels import keep_channels
from prunebook.models.config import WIDTHS
from prunebook.models.loading import load_model, save_model
from prunebook.models.surgery import keep_heads, keep_neurons, sync_config


def narrow_by_hand(model, kept):
    """A fresh model of the smaller width with the slices that the names of parameters ask for."""
    config = type(model.config)(**model.config.to_dict() | {"hidden_size": len(kept)})
    small = type(model)(config).eval()
    sizes = dict(small.named_parameters())
    state = {}
    for name, value in model.state_dict().items():
        if any(part in name for part in ("q_norm", "k_norm")) or (
            name.endswith("_proj.bias") and "o_proj" not in name
        ):
            state[name] = value
        elif "o_proj" in name or "down_proj" in name or "norm" in name:
            state[name] = value[kept]
        else:
            state[name] = value[:, kept]
        assert name not in sizes or state[name].shape == sizes[name].shape
    small.load_state_dict(state)
    return small


@pytest.mark.parametrize("head_dim", [8, 32])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", LIKE_LLAMA)
def test_hidden_channels_that_stay_are_a_narrower_model(
    make_model, tokens, word_tokenizer, tmp_path, family, tied, head_dim
):
    kept = [1, 2, 3, 5, 8, 9, 10, 11, 13, 17, 18, 19, 20, 21, 22, 23, 25, 29, 30, 31]
    named = {"tie_word_embeddings": tied, "head_dim": head_dim}
    model = make_model(family, **named)
    other = make_model(family, **named)
    frozen = model.model.norm.weight.requires_grad_(False)
    keep_channels(model, [*reversed(kept), 1])
    assert model.config.hidden_size == model.get_input_embeddings().embedding_dim == 20
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert model.lm_head.in_features == 20
    assert model.model.norm.weight is not frozen
    assert not model.model.norm.weight.requires_grad
    assert torch.equal(logits(model, tokens), logits(narrow_by_hand(other, kept), tokens))
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        save_model(model, word_tokenizer, tmp_path / "model")
    ).eval()
    assert torch.equal(logits(plain, tokens), logits(model, tokens))
    assert (plain.lm_head.weight is plain.model.embed_tokens.weight) == tied


def test_channels_that_are_zero_everywhere_leave_only_their_part_of_the_norm(make_model, tokens):
    model = make_model("llama", rms_norm_eps=0.0)
    kept = list(range(24))
    gone = list(range(24, 32))
    with torch.no_grad():
        model.model.embed_tokens.weight[:, gone] = 0
        for block in model.model.layers:
            block.self_attn.o_proj.weight[gone] = block.mlp.down_proj.weight[gone] = 0
    wide = logits(model, tokens)
    for norm in norms(model):
        # the mean of squares is over 24 channels, no longer over 32
        norm.weight.data *= (32 / 24) ** 0.5
    keep_channels(model, kept)
    torch.testing.assert_close(logits(model, tokens), wide, rtol=1e-3, atol=1e-3)


def test_channels_of_uneven_blocks(make_model, tokens, word_tokenizer, tmp_path):
    model = make_model("llama")
    keep_neurons(sublayers(model.model.layers[1]), range(10))
    keep_heads(sublayers(model.model.layers[1]), [2, 3])
    assert not sync_config(model)
    keep_channels(model, range(28))
    again, _ = load_model(save_model(model, word_tokenizer, tmp_path / "model"), device="cpu")
    assert torch.equal(logits(again, tokens), logits(model, tokens))


@pytest.mark.parametrize(
    ("family", "kept", "message"),
    [
        (
            "opt",
            range(16),
            "OPTForCausalLM cannot lose hidden channels: its configuration has no head_dim",
        ),
        ("gpt2", range(16), "GPT2LMHeadModel cannot lose hidden channels"),
        ("llama", [], "hidden channels must be some of 0 to 31"),
        ("llama", range(-1, 3), "must be some of 0 to 31"),
        ("llama", range(33), "must be some of 0 to 31"),
        (
            "llama",
            range(30),
            "30 hidden channels do not divide among 4 heads, .* the nearest is 32",
        ),
        ("llama", range(1), "1 hidden channels do not divide among 4 heads, .* the nearest is 4"),
    ],
)
def test_impossible_channels_are_refused_and_nothing_changes(
    make_model, tokens, family, kept, message
):
    model = make_model(family)
    before = logits(model, tokens)
    with pytest.raises(UserError, match=message):
        keep_channels(model, kept)
    assert torch.equal(logits(model, tokens), before)


def test_channels_go_by_the_heads_that_are_left(make_model, tokens, word_tokenizer, tmp_path):
    model = make_model("llama", num_attention_heads=8, head_dim=4)
    for block in model.model.layers:
        keep_heads(sublayers(block), [0, 1, 3, 4, 5, 7])
    assert not sync_config(model)  # 6 heads, which do not divide 32 channels
    with pytest.raises(UserError, match="28 hidden channels do not divide among 6 heads"):
        keep_channels(model, range(28))
    prune(model, "minitron", keep_hidden=30, calibration=tokens)
    assert not hasattr(model.config, WIDTHS)
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        save_model(model, word_tokenizer, tmp_path / "m")
    ).eval()
    assert torch.equal(logits(plain, tokens), logits(model, tokens))


def test_channels_of_blocks_that_differ_go_by_the_configuration(
    make_model, tokens, word_tokenizer, tmp_path
):
    model = make_model("llama", num_attention_heads=8, head_dim=4)
    for block, kept in zip(
        model.model.layers, ([0, 4], [0, 1, 2, 4, 5, 6], [0, 1, 2, 5, 6, 7]), strict=True
    ):
        keep_heads(sublayers(block), kept)
    sync_config(model)
    keep_channels(model, range(16))  # a multiple of 8 heads, not of 6
    again, _ = load_model(save_model(model, word_tokenizer, tmp_path / "model"), device="cpu")
    assert torch.equal(logits(again, tokens), logits(model, tokens))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("Helium", "the size of its heads follows from them"),
        ("StableLm", "the size of its heads follows from them"),
        ("Olmo", "its norms have no weights to cut"),
    ],
)
def test_families_whose_shapes_follow_from_the_width_keep_it(tokens, kind, reason):
    model = tiny(kind)
    before = logits(model, tokens)
    with pytest.raises(UserError, match=f"{kind}ForCausalLM cannot lose hidden channels: {reason}"):
        keep_channels(model, range(24))
    assert torch.equal(logits(model, tokens), before)


@pytest.mark.parametrize("kind", ["Olmo2", "Cohere", "Granite", "SmolLM3"])
def test_other_families_lose_channels_and_reload(tokens, word_tokenizer, tmp_path, kind):
    model = tiny(kind)
    keep_channels(model, range(24))
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        save_model(model, word_tokenizer, tmp_path / "m")
    ).eval()
    assert torch.equal(logits(plain, tokens), logits(model, tokens))


def test_embeddings_scaled_by_the_width_are_refused():
    """Gemma multiplies embeddings by the root of the width, so that a reloaded model would compute
    something else."""
    with pytest.raises(
        UserError,
        match="Gemma2ForCausalLM cannot lose hidden channels: their number scales its emb",
    ):
        keep_channels(tiny("Gemma2"), range(24))
