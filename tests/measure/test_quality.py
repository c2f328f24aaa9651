"""Perplexity, KL divergence and agreement beside plain float64 formulas."""

import math

import pytest
import torch

from prunebook.data.windows import evaluation_tokens
from prunebook.errors import UserError
from prunebook.measure import baseline
from prunebook.measure.baseline import dense_baseline
from prunebook.measure.quality import measure_quality, perplexity
from prunebook.methods import prune

FAMILIES = ("llama", "opt", "gpt2")


def log_probs(model, tokens):
    """float64 `[n, length - 1, vocabulary]`, without any of the library's ways to compute."""
    with torch.no_grad():
        return model(input_ids=tokens).logits[:, :-1].double().log_softmax(-1)


def window_nll(model, tokens):
    return -log_probs(model, tokens).gather(-1, tokens[:, 1:, None])[..., 0].mean(1)


def pruned_copy(make_model, family):
    model = make_model(family)
    prune(model, "magnitude", sparsity=0.3)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_perplexity_is_the_exponential_of_the_mean_loss(make_model, tokens, family):
    model = make_model(family)
    expected = window_nll(model, tokens)
    result = measure_quality(model, tokens, precision="exact")
    torch.testing.assert_close(result.nll.double(), expected, rtol=1e-5, atol=0)
    assert result.perplexity == pytest.approx(expected.mean().exp().item(), rel=1e-5)
    assert perplexity(model, tokens, "exact") == result.perplexity
    assert (result.tokens, result.kl, result.agreement) == (7 * 15, None, None)
    assert result.tokens_per_second == pytest.approx(105 / result.seconds)


def test_a_uniform_model_has_the_vocabulary_as_perplexity(make_model, tokens):
    model = make_model("llama")
    model.lm_head.weight.data.zero_()
    assert perplexity(model, tokens, "exact") == pytest.approx(100, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_divergence_and_agreement_follow_their_formulas(make_model, tokens, cache, family):
    dense = make_model(family)
    pruned = pruned_copy(make_model, family)
    p = log_probs(dense, tokens)
    q = log_probs(pruned, tokens)
    result = measure_quality(pruned, tokens, dense_baseline(dense, tokens, "exact"), "exact")
    assert result.kl == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-4)
    assert result.agreement == pytest.approx(
        (p.argmax(-1) == q.argmax(-1)).double().mean().item(), abs=1e-9
    )
    assert result.kl > 0.01
    assert result.agreement < 1


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_a_model_does_not_diverge_from_itself(make_model, tokens, cache, precision):
    model = make_model("llama")
    dense = dense_baseline(model, tokens, precision)
    result = measure_quality(model, tokens, dense, precision)
    assert result.kl == pytest.approx(0, abs=1e-6)
    assert result.agreement == 1
    assert torch.equal(result.nll, dense.nll)
    assert dense.perplexity == result.perplexity


def test_windows_do_not_see_each_other(make_model, tokens):
    model = make_model("llama")
    whole = measure_quality(model, tokens, precision="exact").nll
    for i in range(len(tokens)):
        alone = measure_quality(model, tokens[i : i + 1], precision="exact").nll
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-5, atol=0)


def test_the_batch_size_does_not_matter(make_model, tokens, cache, monkeypatch):
    dense = make_model("llama")
    pruned = pruned_copy(make_model, "llama")
    of_dense = dense_baseline(dense, tokens, "exact")
    whole = measure_quality(pruned, tokens, of_dense, "exact")
    monkeypatch.setattr(baseline, "BATCH_TOKENS", 48)  # three windows at a time, one left over
    parts = measure_quality(pruned, tokens, of_dense, "exact")
    torch.testing.assert_close(parts.nll, whole.nll, rtol=1e-5, atol=0)
    assert parts.kl == pytest.approx(whole.kl, rel=1e-4)
    assert parts.agreement == whole.agreement


def test_measuring_leaves_no_hook(make_model, tokens, cache):
    model = make_model("llama")
    measure_quality(model, tokens, dense_baseline(model, tokens), "fast")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_record_of_a_measurement(make_model, tokens):
    record = measure_quality(make_model("llama"), tokens, precision="exact").to_dict()
    assert record["evaluation_precision"] == "exact"
    assert record["kl"] is None
    assert record["perplexity"] > 1


def test_a_baseline_of_other_tokens_is_refused(make_model, tokens, cache):
    model = make_model("llama")
    with pytest.raises(UserError, match="baseline was made from other tokens"):
        measure_quality(model, tokens[:3], dense_baseline(model, tokens))


@pytest.mark.parametrize("function", [measure_quality, dense_baseline, perplexity])
@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.full((1, 4), 100), "tokens holds token id 100"),
        (torch.zeros(3, 1, dtype=torch.int64), "at least 2"),
        (torch.zeros(3, 4), "tokens must be an int64 tensor"),
    ],
)
def test_bad_tokens_are_refused(make_model, cache, function, tokens, message):
    with pytest.raises(UserError, match=message):
        function(make_model("llama"), tokens)


def test_an_unknown_precision_is_refused(make_model, tokens):
    with pytest.raises(UserError, match="precision 'half' is unknown; use 'exact' or 'fast'"):
        measure_quality(make_model("llama"), tokens, precision="half")


def test_fast_stays_near_exact_on_the_embedded_model(embedded):
    """A coarse check: 1,022 tokens cannot resolve a shift of 0.1 %, which takes the whole
    evaluation text."""
    model, tokenizer = embedded
    held_out = evaluation_tokens(tokenizer, windows=2, length=512)
    exact, fast = (perplexity(model, held_out, precision) for precision in ("exact", "fast"))
    assert abs(math.log(fast / exact)) < 5e-3
    assert 10 < exact < 40


def test_windows_beyond_the_positions_are_refused(make_model):
    model = make_model("gpt2")
    limit = model.config.max_position_embeddings
    with pytest.raises(
        UserError, match=f"windows of {limit + 1} tokens; the model's positions end at {limit}"
    ):
        measure_quality(model, torch.zeros(1, limit + 1, dtype=torch.int64))
