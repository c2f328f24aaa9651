"""Several caches side by side: the same numbers as one by one, bytes by formula, steps in turn."""

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from prunebook.caches import (
    H2OCache,
    RandomCache,
    WindowCache,
    compare,
    measure,
    time_steps,
)
from prunebook.errors import UserError

CACHES = {
    "H2O": lambda: H2OCache(4),
    "random": [lambda seed=seed: RandomCache(4, seed=seed) for seed in range(2)],
}


def held_bytes(model, slots):
    """Keys and values of one row: 2 x layers x KV heads x slots x width x 4 bytes."""
    config = model.config
    return 2 * config.num_hidden_layers * config.num_key_value_heads * slots * config.head_dim * 4


def test_rows_are_the_single_measurements(make_model, tokens):
    model = make_model("llama")
    found = compare(model, CACHES, tokens, prompt=6, progress=False)
    plain = measure(model, tokens, prompt=6)
    assert [(row["label"], row["method"], row["seed"]) for row in found.rows()] == [
        ("full cache", "plain", None),
        ("H2O", "H2OCache", None),
        ("random", "RandomCache", 0),
        ("random", "RandomCache", 1),
    ]
    assert found.rows()[0]["perplexity"] == pytest.approx(plain.perplexity, rel=1e-6)
    assert found.nll("full cache").shape == (2, len(tokens))
    one = measure(model, tokens, CACHES["H2O"], prompt=6).nll
    np.testing.assert_array_equal(found.nll("H2O"), torch.stack([one, one]))
    draws = [measure(model, tokens, draw, prompt=6).nll for draw in CACHES["random"]]
    np.testing.assert_array_equal(found.nll("random"), torch.stack(draws))
    assert found.perplexity("random") == pytest.approx(
        float(torch.stack(draws).mean().exp()), rel=1e-6
    )
    assert found.protocol["seeds"] == 2
    assert (
        found.protocol["evaluation"]
        == f"{len(tokens)} x 6 tokens of prompt, then 10 predicted one after the other"
    )


def test_bytes_are_those_of_one_window(make_model, tokens):
    model = make_model("llama")
    rows = compare(model, CACHES, tokens, prompt=6, progress=False).rows()
    # 15 of the 16 tokens are read; a pruned cache has its four slots and one for the token that
    # comes in
    assert [row["kv_cache_bytes"] for row in rows] == [
        held_bytes(model, slots) for slots in (15, 5, 5, 5)
    ]


def test_steps_are_timed_in_turn(make_model, tokens, monkeypatch, other_work):
    model = make_model("llama")
    clock = [0.0]
    other_work(0.0)
    monkeypatch.setattr("prunebook.measure.footprint.time.perf_counter", lambda: clock[0])
    read = []
    forward = model.forward

    def recorded(**inputs):
        read.append(type(inputs["past_key_values"]).__name__)
        clock[0] += 2.0 if read[-1] == "WindowCache" else 1.0
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", recorded)
    found = time_steps(
        model, {"plain": DynamicCache, "window": lambda: WindowCache(4)}, tokens, prompt=12
    )
    assert read == ["DynamicCache", "WindowCache"] * 5  # the prompts, then four steps
    assert found["plain"].seconds.tolist() == [1.0] * 3  # the first step is not counted
    assert found["window"].seconds.tolist() == [2.0] * 3
    assert (found["plain"].prompt_seconds, found["window"].prompt_seconds) == (1.0, 2.0)
    assert str(found["window"]) == "2000 ms a step, 2.0 s for the prompt"
    assert found["plain"].held_bytes.tolist() == [
        len(tokens) * held_bytes(model, n) for n in (14, 15, 16)
    ]
    assert found["window"].held_bytes.tolist() == [len(tokens) * held_bytes(model, 5)] * 3
    with pytest.raises(
        UserError, match="prompt 16 is not allowed; use 1 to 15 tokens of each window"
    ):
        time_steps(model, {"plain": DynamicCache}, tokens, prompt=16)


# beside the prompts, or beside the steps
@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.0, 1.0)])
def test_a_busy_machine_times_no_step(make_model, tokens, other_work, shares):
    model = make_model("llama")
    other_work(*shares)
    found = time_steps(model, {"plain": DynamicCache}, tokens, prompt=12)["plain"]
    assert (found.seconds, found.prompt_seconds) == (None, None)
    assert str(found) == "machine was busy: not timed"
    assert found.held_bytes.tolist() == [len(tokens) * held_bytes(model, n) for n in (14, 15, 16)]


def test_bad_comparisons(make_model, tokens):
    model = make_model("llama")

    def draw():
        return H2OCache(4)

    with pytest.raises(
        UserError, match="label 'full cache' is the plain cache's, which is measured in any case"
    ):
        compare(model, {"full cache": draw}, tokens, prompt=6)
    for caches, given in (({"a": [draw] * 2, "b": [draw] * 3}, "a 2, b 3"), ({"a": []}, "a 0")):
        with pytest.raises(
            UserError, match=f"draws: {given}; use the same number for all that have several"
        ):
            compare(model, caches, tokens, prompt=6)
    found = compare(model, {"a": draw}, tokens[:2], prompt=6, progress=False)
    with pytest.raises(UserError, match="'b' was not measured; there are full cache, a"):
        found.nll("b")
