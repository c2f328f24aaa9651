"""Caches in plain `generate`: equal to the plain cache with a full budget, to rows alone in a
batch; refusals."""

import functools

import pytest
import torch
from tests.kernels.compiling import DEVICE, needs_triton
from tests.passes.families import every_family
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import prunebook as pb
from prunebook.caches import H2OCache, KeyformerCache, RandomCache, WindowCache
from prunebook.caches.attention import install
from prunebook.errors import UserError

CACHES = {
    "h2o": H2OCache,
    "keyformer": functools.partial(KeyformerCache, new_tokens=12),
    "window": WindowCache,
    "random": RandomCache,
    "average": functools.partial(H2OCache, average=True),
    "sinks": functools.partial(WindowCache, sinks=2),
}


@every_family
def test_a_full_budget_is_the_plain_cache(make_model, generate, padded, family):
    model = make_model(family, **({"sliding_window": None} if family == "mistral" else {}))
    ids, mask = padded
    expected = generate(model, ids, DynamicCache(), attention_mask=mask)
    for cache in (H2OCache(1.0), H2OCache(40), WindowCache(32)):
        assert torch.equal(generate(model, ids, cache, attention_mask=mask), expected)
    assert not torch.equal(generate(model, ids, WindowCache(4), attention_mask=mask), expected)


@pytest.mark.parametrize("name", CACHES)
def test_a_padded_row_is_the_row_alone(make_model, generate, padded, name):
    model, (ids, mask), make = make_model("llama"), padded, CACHES[name]
    together = make(0.4)
    first = make(0.4)
    second = make(0.4)
    both = generate(model, ids, together, attention_mask=mask)
    assert torch.equal(both[:1], generate(model, ids[:1], first))
    assert torch.equal(both[1:], generate(model, ids[1:, 7:], second))
    for layer, *alone in zip(together.layers, first.layers, second.layers, strict=True):
        for row, other in enumerate(alone):
            for mine, theirs in zip(layer.positions[row], other.positions[0], strict=True):
                assert set(mine.tolist()) == set(theirs.tolist())


@pytest.mark.parametrize("name", CACHES)
def test_under_autocast_values_are_narrower_than_keys(make_model, tokens, name):
    """The rotary embedding gives float32 queries and keys there; a full budget is then the plain
    cache, too."""
    model = make_model("llama")
    found = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for cache in (CACHES[name](1.0), DynamicCache()):
            model(tokens[:, :12], past_key_values=cache)
            found.append(model(tokens[:, 12:13], past_key_values=cache).logits)
    torch.testing.assert_close(*found, atol=0.1, rtol=0.02)


@pytest.mark.parametrize("name", CACHES)
def test_decoding_is_attention_masked_to_the_kept_tokens(make_model, tokens, name):
    """Nothing dropped, and a mask a head made from what the cache says it kept."""
    model = make_model("llama", num_hidden_layers=1)
    cache = CACHES[name](0.5)
    with torch.no_grad():
        model(tokens[:, :12], past_key_values=cache)
        kept = cache.layers[0].positions.clone()
        found = model(tokens[:, 12:13], past_key_values=cache).logits[:, -1]
        allowed = (kept[..., None] == torch.arange(13)).any(2)
        allowed[..., 12] = True
        assert (allowed.sum(-1) == 7).all()
        mask = torch.ones(13, 13).tril().bool().expand(7, 4, 13, 13).clone()
        mask[:, :, 12] = allowed.repeat_interleave(2, 1)
        expected = model(tokens[:, :13], attention_mask=mask).logits[:, -1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_beams_carry_their_own_tokens(make_model, generate, padded):
    model, (ids, mask) = make_model("llama"), padded
    beams = functools.partial(generate, model, ids, attention_mask=mask, num_beams=3)
    assert torch.equal(beams(H2OCache(1.0)), beams(DynamicCache()))
    both = beams(H2OCache(0.4))
    assert torch.equal(both[:1], generate(model, ids[:1], H2OCache(0.4), num_beams=3))


def test_a_second_turn_is_reading_token_by_token(make_model, tokens):
    model = make_model("llama")
    whole = H2OCache(0.5)
    single = H2OCache(0.5)
    with torch.no_grad():
        for cache in (whole, single):
            model(tokens[:, :8], past_key_values=cache)
        together = model(tokens[:, 8:], past_key_values=whole).logits
        one = [model(tokens[:, t : t + 1], past_key_values=single).logits for t in range(8, 16)]
    torch.testing.assert_close(together, torch.cat(one, 1), atol=1e-5, rtol=1e-5)
    assert torch.equal(whole.layers[2].positions, single.layers[2].positions)
    assert whole.get_seq_length() == 16


def test_half_precision(make_model, generate, tokens):
    model = make_model("llama").bfloat16()
    cache = H2OCache(0.5)
    assert generate(model, tokens, cache).shape == (7, 12)
    assert cache.layers[0].keys.dtype == torch.bfloat16
    assert cache.layers[0].scores.dtype == torch.float32


def test_products_beyond_float16_are_the_plain_caches(make_model, generate, tokens):
    """Logits are scaled before they are rounded: |q k| of 1e5 is infinite in float16."""
    model = make_model("llama").half()
    for block in model.model.layers:
        for linear in (block.self_attn.q_proj, block.self_attn.k_proj):
            linear.weight.data.mul_(150 / linear(torch.randn(64, linear.in_features).half()).std())
    plain = DynamicCache()
    pruned = H2OCache(1.0)
    for part in (tokens[:, :12], tokens[:, 12:13]):
        logits = [model(part, past_key_values=cache).logits for cache in (plain, pruned)]
        assert logits[0].isfinite().all()
        torch.testing.assert_close(logits[1], logits[0], rtol=0.02, atol=0.02)


def test_other_calls_are_unchanged(make_model, tokens):
    model = make_model("llama")
    with torch.no_grad():
        H2OCache(0.5).layer_class_to_replicate()
        wrapper = ALL_ATTENTION_FUNCTIONS["sdpa"]
        wrapped = model(tokens).logits
        install()
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is wrapper  # once
        try:
            ALL_ATTENTION_FUNCTIONS["sdpa"] = wrapper.__wrapped__
            assert torch.equal(model(tokens).logits, wrapped)
        finally:
            del ALL_ATTENTION_FUNCTIONS["sdpa"]


def test_a_wrapper_of_another_library_stays(make_model, tokens, generate):
    model = make_model("llama")
    calls = []
    expected = generate(model, tokens, H2OCache(0.5))
    ours = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def theirs(*args, **options):
        calls.append(1)
        return ours(*args, **options)

    registered = type(ALL_ATTENTION_FUNCTIONS)._global_mapping
    try:
        registered["sdpa"] = theirs
        assert torch.equal(generate(model, tokens, H2OCache(0.5)), expected)
        assert calls
    finally:
        registered["sdpa"] = ours


def test_a_cache_can_be_used_again_after_reset(make_model, tokens, generate):
    model = make_model("llama")
    cache = H2OCache(0.5)
    first = generate(model, tokens, cache)
    cache.reset()
    assert torch.equal(generate(model, tokens, cache), first)


def test_attention_that_does_not_show_its_queries(make_model, tokens):
    model = make_model("llama")
    model.set_attn_implementation("eager")
    cache = H2OCache(0.5)
    with pytest.raises(
        UserError,
        match="does not show its queries to the cache; use a decoder model with full causal",
    ):
        model(tokens, past_key_values=cache)
    model.set_attn_implementation("sdpa")
    # the refusal does not stick
    assert model(tokens, past_key_values=cache).logits.shape[:2] == tokens.shape


@pytest.mark.parametrize(
    ("family", "changes", "what"),
    [
        ("mistral", {}, "MistralAttention uses sliding_window"),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
            "uses sliding_window",
        ),
    ],
)
def test_attention_over_a_part_of_the_tokens(make_model, tokens, family, changes, what):
    with pytest.raises(
        UserError, match=f"{what}, which cannot be pruned; use a decoder model with full causal"
    ):
        make_model(family, **changes)(tokens, past_key_values=WindowCache(0.5))


def test_encoders(make_model, tokens):
    model = make_model("llama")
    for block in model.model.layers:
        block.self_attn.is_causal = False
    with pytest.raises(
        UserError, match="LlamaAttention uses encoder attention, which cannot be pruned"
    ):
        model(tokens, past_key_values=H2OCache(0.5))


def test_masks_that_are_not_causal(make_model, tokens):
    packed = torch.ones(16, 16).tril().bool()
    packed[8:, :8] = False
    model = make_model("llama")
    for mask in (packed, torch.ones(16, 16).bool()):
        with pytest.raises(UserError, match="not causal over the whole prompt"):
            model(tokens, attention_mask=mask.expand(7, 1, 16, 16), past_key_values=H2OCache(0.5))
    with pytest.raises(UserError, match=r"mask of torch.float32 cannot be pruned; use a 2-D mask"):
        model(tokens, attention_mask=torch.zeros(7, 1, 16, 16), past_key_values=H2OCache(0.5))


def test_too_small_a_share_of_a_short_prompt(make_model, tokens, generate):
    with pytest.raises(
        UserError, match=r"budget 0.05 of a prompt of 16 tokens is less than one token"
    ):
        generate(make_model("llama"), tokens, pb.caches.H2OCache(0.05))


@needs_triton
@pytest.mark.parametrize(
    "make", [H2OCache, WindowCache, functools.partial(KeyformerCache, new_tokens=3)]
)
def test_kernels_in_a_model(with_kernels, make_model, generate, padded, make):
    """A generation with queries and keys as a model makes them: the same tokens written and kept. A
    window has no mass to read from the prompt."""
    model = make_model("llama", num_hidden_layers=2).to(DEVICE)
    ids, mask = (x.to(DEVICE) for x in padded)
    written = []
    kept = []
    for kernels in (False, True):
        launched = with_kernels(kernels)
        cache = make(0.4)
        written.append(generate(model, ids, cache, new=3, attention_mask=mask))
        kept.append([layer.positions for layer in cache.layers])
        layers = kernels * len(cache.layers)
        assert launched.count("launch_take_kept") == layers
        assert launched.count("launch_attention_mass") == layers * (make is not WindowCache)
        assert launched.count("launch_decode") == 2 * layers
    assert torch.equal(*written)
    assert all(map(torch.equal, *kept))
