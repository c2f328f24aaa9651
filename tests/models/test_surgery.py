"""Blocks, heads and neurons cut out: against the model with outgoing weights zeroed, in every
family, and after saving."""

import copy

import pytest
import torch
import transformers
from tests.models.tiny_models import tiny
from tests.passes.families import LIKE_LLAMA
from tests.whole_models import greedy

from prunebook.errors import UserError
from prunebook.measure.footprint import footprint
from prunebook.models.anatomy import all_sublayers
from prunebook.models.config import WIDTHS
from prunebook.models.loading import load_model, save_model
from prunebook.models.sizes import block_parameters
from prunebook.models.surgery import keep_heads, keep_neurons, remove_blocks, sync_config

FAMILIES = (*LIKE_LLAMA, "opt")


@pytest.fixture
def build(make_model, make_classifier):
    """`build(family)`: a new tiny model of a family, or the body of a tiny BERT."""

    def make(family):
        if family == "bert":
            return make_classifier().bert
        return make_model(family)

    return make


def outputs(model, tokens):
    with torch.no_grad():
        out = model(input_ids=tokens)
    return out.logits if hasattr(out, "logits") else out.last_hidden_state


def cut_unevenly(model):
    """Blocks 0, 1, 2 with 2, 1 and 2 key-value groups (heads, where each is its own), and 48, 20
    and 31 neurons."""
    parts = all_sublayers(model)
    per_group = parts[0].heads // parts[0].kv_heads
    keep_heads(parts[1], range(per_group, 2 * per_group))
    keep_neurons(parts[1], range(0, 40, 2))
    keep_neurons(parts[2], range(31))
    return sync_config(model)


@torch.no_grad()
def silence(linear, columns):
    linear.weight[:, columns] = 0


@pytest.mark.parametrize("family", [*FAMILIES, "bert"])
def test_neurons_cut_out_are_neurons_unheard(build, tokens, family):
    cut = build(family)
    masked = build(family)
    for number, (parts, heard) in enumerate(
        zip(all_sublayers(cut), all_sublayers(masked), strict=True)
    ):
        gone = [0, 7 + number, parts.neurons - 1]
        keep_neurons(parts, set(range(parts.neurons)) - set(gone))
        silence(heard.last, gone)
        assert parts.neurons == heard.neurons - 3
        assert all(
            linear.out_features == len(linear.weight) == parts.neurons for linear in parts.first
        )
    torch.testing.assert_close(outputs(cut, tokens), outputs(masked, tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "gone"),
    [
        *((family, heads) for family in LIKE_LLAMA for heads in ([0, 1], [2, 3], [0, 2], [1, 3])),
        *((family, heads) for family in ("opt", "bert") for heads in ([0], [3], [1, 2], [0, 1, 3])),
    ],
)
def test_heads_cut_out_are_heads_unheard(build, tokens, family, gone):
    cut = build(family)
    masked = build(family)
    for parts, heard in zip(all_sublayers(cut), all_sublayers(masked), strict=True):
        keep_heads(parts, set(range(4)) - set(gone))
        silence(heard.out, [8 * head + channel for head in gone for channel in range(8)])
        whole = gone in ([0, 1], [2, 3])
        expected = (
            (2, 1 if whole else 2) if family in LIKE_LLAMA else (4 - len(gone), 4 - len(gone))
        )
        assert (parts.heads, parts.kv_heads) == expected
    torch.testing.assert_close(outputs(cut, tokens), outputs(masked, tokens), rtol=1e-4, atol=1e-5)


def test_order_and_repeats_do_not_matter_and_flags_stay(make_model, tokens):
    one = make_model("llama")
    other = make_model("llama")
    for model, neurons, heads in ((one, [5, 3, 5, 9], [3, 2]), (other, [3, 5, 9], [2, 3])):
        parts = all_sublayers(model)[0]
        parts.last.weight.requires_grad_(False)
        keep_neurons(parts, neurons)
        keep_heads(parts, heads)
        assert not parts.last.weight.requires_grad
        assert parts.first[0].weight.requires_grad
        assert parts.last.weight.is_contiguous()
        # nothing of the old one is held
        assert parts.last.weight.untyped_storage().nbytes() == 3 * 32 * 4
    assert torch.equal(outputs(one, tokens), outputs(other, tokens))


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (
            lambda p: keep_heads(p, []),
            "removing all 4 heads of a block is not possible; keep at least one",
        ),
        (lambda p: keep_neurons(p, []), "removing all 48 neurons of a block is not possible"),
        (
            lambda p: keep_neurons(p, [0, 48]),
            "neuron 48 does not exist; the block has neurons 0 to 47",
        ),
        (lambda p: keep_heads(p, [-1, 0]), "head -1 does not exist; the block has heads 0 to 3"),
        (
            lambda p: keep_heads(p, [0, 1, 2]),
            r"query heads \[0, 1, 2\] would leave \[2, 1\] of them to the 2 key-value "
            "heads; keep the same number of every 2 that follow each other, or none",
        ),
    ],
)
def test_impossible_cuts_are_refused_and_nothing_changes(make_model, tokens, cut, message):
    model = make_model("llama")
    before = outputs(model, tokens)
    with pytest.raises(UserError, match=message):
        cut(all_sublayers(model)[0])
    assert torch.equal(outputs(model, tokens), before)


def test_weights_over_all_heads_are_refused_unless_all_stay():
    """OLMo 2 norms the queries of all heads together."""
    parts = all_sublayers(tiny("Olmo2"))[0]
    keep_heads(parts, range(4))
    with pytest.raises(
        UserError, match="Olmo2Attention cannot lose heads: its q_norm is over all of them"
    ):
        keep_heads(parts, [0, 1])
    assert parts.heads == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_uneven_blocks_save_reload_and_generate(
    make_model, tokens, word_tokenizer, tmp_path, family
):
    model = make_model(family)
    assert not cut_unevenly(model)
    for folder in ("once", "twice"):
        path = save_model(model, word_tokenizer, tmp_path / folder)
        again, _ = load_model(path, device="cpu")
        assert type(again) is type(model)
        assert torch.equal(outputs(again, tokens), outputs(model, tokens))
        assert again.config.architectures == [type(model).__name__]
        assert getattr(again.config, WIDTHS) == getattr(model.config, WIDTHS)
        assert (
            again.lm_head.weight is again.get_input_embeddings().weight
        ) == model.config.tie_word_embeddings
        model = again
    expected = greedy(model, tokens[:2], use_cache=True)
    assert torch.equal(greedy(model, tokens[:2], use_cache=False), expected)
    assert model.generation_config.use_cache  # nothing had to be switched off


def test_an_uneven_encoder_reloads(build, tokens, word_tokenizer, tmp_path):
    model = build("bert")
    assert not cut_unevenly(model)
    again, _ = load_model(save_model(model, word_tokenizer, tmp_path / "bert"), device="cpu")
    assert type(again) is transformers.BertModel
    assert torch.equal(outputs(again, tokens), outputs(model, tokens))


def test_uneven_blocks_reload_in_a_narrow_dtype(make_model, tokens, word_tokenizer, tmp_path):
    model = make_model("llama")
    cut_unevenly(model)
    path = save_model(model, word_tokenizer, tmp_path / "wide")
    narrow, _ = load_model(path, device="cpu", dtype="bfloat16")
    assert {parameter.dtype for parameter in narrow.parameters()} == {torch.bfloat16}
    path = save_model(narrow, word_tokenizer, tmp_path / "narrow")
    again, _ = load_model(path, device="cpu", dtype="bfloat16")
    assert torch.equal(outputs(again, tokens), outputs(narrow, tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_refuses_uneven_blocks(make_model, word_tokenizer, tmp_path, family):
    model = make_model(family)
    cut_unevenly(model)
    path = save_model(model, word_tokenizer, tmp_path / "model")
    with pytest.raises(RuntimeError, match="mismatch"):
        transformers.AutoModelForCausalLM.from_pretrained(path)


def test_heads_that_the_configuration_does_not_allow_are_kept_by_block(
    make_model, tokens, word_tokenizer, tmp_path
):
    model = make_model("llama", num_attention_heads=8, head_dim=4)
    for parts in all_sublayers(model):
        keep_heads(parts, [0, 2, 3, 5, 6, 7])
    # 32 is no multiple of 6, which Llama's configuration asks for when it is saved
    assert not sync_config(model)
    again, _ = load_model(save_model(model, word_tokenizer, tmp_path / "model"), device="cpu")
    assert torch.equal(outputs(again, tokens), outputs(model, tokens))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", LIKE_LLAMA)
def test_even_blocks_are_an_ordinary_model(
    make_model, tokens, word_tokenizer, tmp_path, family, tied
):
    model = make_model(family, tie_word_embeddings=tied)
    for number, parts in enumerate(all_sublayers(model)):
        keep_heads(parts, [2, 3] if number else [0, 1])
        keep_neurons(parts, range(number, number + 21))
    assert sync_config(model)
    assert not hasattr(model.config, WIDTHS)
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (2, 1)
    assert (model.config.head_dim, model.config.intermediate_size) == (8, 21)
    path = save_model(model, word_tokenizer, tmp_path / "model")
    plain = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    assert torch.equal(outputs(plain, tokens), outputs(model, tokens))
    assert torch.equal(greedy(plain, tokens[:2]), greedy(model, tokens[:2]))
    assert (plain.lm_head.weight is plain.model.embed_tokens.weight) == tied


def test_opt_is_ordinary_without_neurons_but_not_without_heads(
    make_model, tokens, word_tokenizer, tmp_path
):
    model = make_model("opt")
    for parts in all_sublayers(model):
        keep_neurons(parts, range(40))
    assert sync_config(model)
    path = save_model(model, word_tokenizer, tmp_path / "model")
    plain = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    assert torch.equal(outputs(plain, tokens), outputs(model, tokens))
    for parts in all_sublayers(model):
        keep_heads(parts, [0, 1])
    assert not sync_config(model)  # its configuration ties the size of heads to the width
    again, _ = load_model(save_model(model, word_tokenizer, path), device="cpu")
    assert torch.equal(outputs(again, tokens), outputs(model, tokens))


def test_heads_of_a_size_tied_to_the_width_are_not_mistaken(tokens, word_tokenizer, tmp_path):
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=100,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.2,
            bos_token_id=0,
            eos_token_id=1,
        )
    ).eval()
    for parts in all_sublayers(model):
        keep_heads(parts, [0, 1])
    assert not sync_config(model)
    again, _ = load_model(save_model(model, word_tokenizer, tmp_path / "model"), device="cpu")
    assert torch.equal(outputs(again, tokens), outputs(model, tokens))


@pytest.mark.parametrize("family", LIKE_LLAMA)
def test_blocks_removed_from_an_uneven_model(make_model, tokens, word_tokenizer, tmp_path, family):
    model = make_model(family)
    cut_unevenly(model)
    remove_blocks(model, [0])
    assert getattr(model.config, WIDTHS) == {
        "heads": [2, 4],
        "kv_heads": [1, 2],
        "neurons": [20, 31],
    }
    again, _ = load_model(save_model(model, word_tokenizer, tmp_path / "model"), device="cpu")
    assert torch.equal(outputs(again, tokens), outputs(model, tokens))
    uncached = greedy(model, tokens[:2], use_cache=False)
    assert torch.equal(greedy(again, tokens[:2], use_cache=True), uncached)
    remove_blocks(again, [1])
    assert not hasattr(again.config, WIDTHS)  # what is left is alike
    path = save_model(again, word_tokenizer, tmp_path / "even")
    plain = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    assert torch.equal(outputs(plain, tokens), outputs(again, tokens))


def test_the_configuration_stays_the_object_that_blocks_hold(make_model):
    model = make_model("llama")
    config = model.config
    cut_unevenly(model)
    remove_blocks(model, [1, 2])
    assert model.config is config is model.model.layers[0].self_attn.config
    assert config.num_attention_heads == 4
    assert copy.deepcopy(config).to_dict() == config.to_dict()


def silence_block(block):
    """Let a block add nothing to the residual stream."""
    for name, parameter in block.named_parameters():
        if any(part in name for part in ("o_proj", "down_proj", "out_proj", "fc2", "c_proj")):
            parameter.data.zero_()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_block_that_adds_nothing_can_go_without_a_trace(make_model, tokens, family, index):
    model = make_model(family)
    stack = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3)
    silence_block(stack[index])
    before = outputs(model, tokens)
    other = [block for i, block in enumerate(stack) if i != index]
    size = block_parameters(model)
    remove_blocks(model, [index])
    assert torch.equal(outputs(model, tokens), before)
    assert list(stack) == other
    assert block_parameters(model) == size * 2 // 3
    assert model.config.num_hidden_layers == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_left_saves_reloads_and_generates_with_a_cache(
    make_model, tokens, word_tokenizer, tmp_path, family
):
    model = make_model(family, **({"n_layer": 5} if family == "gpt2" else {"num_hidden_layers": 5}))
    remove_blocks(model, [3, 1, 3])
    save_model(model, word_tokenizer, tmp_path / "cut")
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "cut").eval()
    assert footprint(reloaded, 16, speed=False) == footprint(model, 16, speed=False)
    assert reloaded.config.num_hidden_layers == 3
    assert torch.equal(outputs(reloaded, tokens), outputs(model, tokens))
    with_cache, without = (
        greedy(reloaded, tokens[:2], use_cache=cached) for cached in (True, False)
    )
    assert torch.equal(with_cache, without)
    assert torch.equal(with_cache, greedy(model, tokens[:2]))


def test_kinds_of_blocks_go_with_them(make_model):
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    model = make_model("qwen2", layer_types=kinds, use_sliding_window=True, sliding_window=4)
    remove_blocks(model, [0])
    assert model.config.layer_types == kinds[1:]
    assert [block.self_attn.layer_idx for block in model.model.layers] == [0, 1]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([3], "block 3 does not exist; the model has blocks 0 to 2"),
        ([-1, 0], "block -1 does not exist"),
        ([0, 1, 2], "removing all 3 blocks leaves no model; leave at least one"),
    ],
)
def test_impossible_blocks_are_refused_and_nothing_changes(make_model, indices, message):
    model = make_model("llama")
    with pytest.raises(UserError, match=message):
        remove_blocks(model, indices)
    assert len(model.model.layers) == model.config.num_hidden_layers == 3


def test_blocks_without_rotation_go_with_them(tokens, word_tokenizer, tmp_path):
    model = tiny("SmolLM3", no_rope_layers=[1, 0, 1, 0])
    remove_blocks(model, [0, 3])
    assert model.config.no_rope_layers == [0, 1]
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        save_model(model, word_tokenizer, tmp_path / "m")
    ).eval()
    assert torch.equal(outputs(plain, tokens), outputs(model, tokens))
