"""What goes as a whole, blocks and hidden channels, and how many units go: by hand, in every
family, after saving."""

import itertools
import re

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebook import prune
from prunebook.errors import UserError
from prunebook.measure.footprint import footprint
from prunebook.models.anatomy import find_stack, norms, sublayers
from prunebook.models.config import WIDTHS
from prunebook.models.loading import load_model, save_model
from prunebook.models.sizes import (
    block_parameters,
    candidates,
    count_channels,
    units_of_ratio,
    units_of_sparsity,
)
from prunebook.models.surgery import (
    keep_channels,
    keep_heads,
    keep_neurons,
    remove_blocks,
    sync_config,
)

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "opt", "gpt2")
GROUPED = ("llama", "mistral", "qwen2", "qwen3")


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
    before = logits(model, tokens)
    other = [block for i, block in enumerate(stack) if i != index]
    size = block_parameters(model)
    remove_blocks(model, [index])
    assert torch.equal(logits(model, tokens), before)
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
    assert torch.equal(logits(reloaded, tokens), logits(model, tokens))
    named = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with_cache, without = (
        reloaded.generate(tokens[:2], use_cache=cached, **named) for cached in (True, False)
    )
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


# Hidden channels


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
@pytest.mark.parametrize("family", GROUPED)
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


def test_the_norms_are_those_over_hidden_channels(make_model):
    for family, count in (("llama", 7), ("qwen3", 7), ("opt", 7)):
        assert len(norms(make_model(family))) == count
    assert len(norms(make_model("qwen3", head_dim=32))) == 7


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
    prune(model, "minitron", hidden=30, calibration=tokens)
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


TINY = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}


def tiny(kind, **changes):
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}ForCausalLM")(
        getattr(transformers, f"{kind}Config")(**TINY | changes)
    ).eval()


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


def test_blocks_without_rotation_go_with_them(tokens, word_tokenizer, tmp_path):
    model = tiny("SmolLM3", no_rope_layers=[1, 0, 1, 0])
    remove_blocks(model, [0, 3])
    assert model.config.no_rope_layers == [0, 1]
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        save_model(model, word_tokenizer, tmp_path / "m")
    ).eval()
    assert torch.equal(logits(plain, tokens), logits(model, tokens))


def test_embeddings_scaled_by_the_width_are_refused():
    """Gemma multiplies embeddings by the root of the width, so that a reloaded model would compute
    something else."""
    with torch.device("meta"):
        model = transformers.Gemma2ForCausalLM(
            transformers.Gemma2Config(
                vocab_size=4,
                hidden_size=32,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=4,
                head_dim=8,
            )
        )
    with pytest.raises(
        UserError,
        match="Gemma2ForCausalLM cannot lose hidden channels: their number scales its emb",
    ):
        keep_channels(model, range(24))


def test_a_number_of_channels(make_model):
    config = make_model("llama").config
    assert [count_channels(config, s) for s in (0.125, 0.2, 0.5, 0.87)] == [28, 24, 16, 4]
    for sparsity, nearest in ((0.01, "0.1250"), (0.99, "0.8750")):
        with pytest.raises(
            UserError, match=rf"of 32 hidden channels, 4 at a time: the nearest is {nearest}"
        ):
            count_channels(config, sparsity)
        assert 0 < count_channels(config, float(nearest)) < 32


# How many units


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
        sizes = {axis: size for axis, size in shape.items() if axis != "gone"}
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
    with torch.device("meta"):
        model = transformers.Olmo2ForCausalLM(
            transformers.Olmo2Config(
                vocab_size=4,
                hidden_size=32,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=4,
                num_key_value_heads=2,
                pad_token_id=0,
            )
        )
    with pytest.raises(
        UserError, match="Olmo2Attention cannot lose heads: its q_norm is over all of them"
    ):
        candidates(model, 0.2, {"heads": [2]})


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
