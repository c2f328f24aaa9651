"""Keyformer's score: its expectation, its temperatures, and H2O as a special case."""

import math

import pytest
import torch

from prunebook.caches import H2OCache, KeyformerCache
from prunebook.caches.keyformer import Temperature
from prunebook.errors import UserError


def scored(logits, step=0, **options):
    """What queries add to the scores of their keys, of logits `[..., queries, keys]`."""
    perturb = KeyformerCache(0.5, **options).layer_class_to_replicate().policy.perturb
    count, keys = logits.shape[-2:]
    perturbation = perturb(0, torch.arange(count)[None], torch.tensor([step]))
    return perturbation.of(logits, torch.arange(keys)[None, None]).softmax(-1)


@pytest.mark.parametrize(("share", "expected"), [(0.6, 0.567), (0.9, 0.816), (0.99, 0.963)])
def test_expectation_of_two_tokens(share, expected):
    a = math.log(share / (1 - share))
    exact = math.exp(a) * (math.exp(a) - 1 - a) / (math.exp(a) - 1) ** 2
    assert exact == pytest.approx(expected, abs=5e-4)
    count = 1_000_000
    logits = torch.tensor([a, 0.0]).expand(1, 1, 1, count, 2)
    found = scored(logits, tau=(1.0, 1.0), seed=4).mean((0, 1, 2, 3))
    assert found[0].item() == pytest.approx(exact, abs=1e-3)


def test_expectation_at_the_last_temperature():
    logits = torch.tensor([math.log(9), 0.0]).expand(1, 1, 1, 400_000, 2)
    found = scored(logits, 8, new_tokens=8)
    assert found[..., 0].mean().item() == pytest.approx(0.72, abs=2e-3)


def test_temperatures():
    found = Temperature((1.0, 2.0), 8).after(torch.tensor([0, 1, 4, 8, 50]))
    assert found.tolist() == [1.0, 1.125, 1.5, 2.0, 2.0]
    assert found.dtype == torch.float32
    assert Temperature((1.5, 1.5), None).after(torch.tensor([0, 9])).tolist() == [1.5, 1.5]


def test_a_constant_changes_nothing():
    logits = torch.randn(2, 2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        scored(logits + 3.7, new_tokens=8), scored(logits, new_tokens=8), atol=1e-5, rtol=0
    )


def test_without_noise_and_temperature_it_is_h2o(make_model, tokens, generate):
    model = make_model("llama")
    h2o = H2OCache(0.5, 0.3)
    plain = KeyformerCache(0.5, 0.3, tau=(1.0, 1.0), noise=False)
    noisy = KeyformerCache(0.5, 0.3, new_tokens=12)
    expected = generate(model, tokens, h2o)
    assert torch.equal(generate(model, tokens, plain), expected)
    generate(model, tokens, noisy)
    for a, b in zip(h2o.layers, plain.layers, strict=True):
        assert torch.equal(a.positions, b.positions)
        assert torch.equal(a.scores, b.scores)
    assert any(
        not torch.equal(a.positions, b.positions)
        for a, b in zip(h2o.layers, noisy.layers, strict=True)
    )


def test_the_seed_decides(make_model, tokens, generate):
    model = make_model("llama")
    kept = []
    for seed in (1, 1, 2):
        cache = KeyformerCache(0.5, new_tokens=12, seed=seed)
        generate(model, tokens, cache)
        kept.append(torch.stack([layer.positions for layer in cache.layers]))
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[2])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {},
            r"tau \(1.0, 2.0\) needs new_tokens, the number of tokens to generate, e.g. new_tok",
        ),
        ({"new_tokens": 0}, "new_tokens 0 is not allowed; use a whole number >= 1, e.g. 64"),
        ({"tau": 1.0}, r"tau 1.0 is not allowed; use two temperatures, e.g. \(1.0, 2.0\)"),
        (
            {"tau": (0, 1), "new_tokens": 4},
            r"tau \(0, 1\) is not allowed; use two temperatures of at least 0.01",
        ),
        ({"new_tokens": 4, "noise": 1}, "noise 1 is not allowed; use True or False"),
        ({"new_tokens": 4, "seed": -1}, "seed -1 is not allowed; use a whole number >= 0"),
        ({"new_tokens": 4, "budget": 1.2}, "budget 1.2 is not allowed"),
    ],
)
def test_bad_options(options, line):
    with pytest.raises(UserError, match=line):
        KeyformerCache(**options)
