"""Which tokens are held: the window and its sinks at every step, and what cannot be traced."""

import pytest
from transformers import DynamicCache

from prunebook.caches import WindowCache, held_positions
from prunebook.errors import UserError


def test_held_positions_of_a_window(make_model, tokens):
    model = make_model("llama")
    sinks = 2
    held = held_positions(model, tokens[0], lambda: WindowCache(5, sinks=sinks), prompt=10)
    assert held.shape == (model.config.num_hidden_layers, model.config.num_key_value_heads, 7, 16)
    for step, mask in enumerate(held[1, 0]):
        newest = range(10 + step - 3, 10 + step)
        assert mask.nonzero().flatten().tolist() == [0, 1, *newest]
    assert (held == held[:1, :1]).all()


def test_without_sinks_it_is_the_window(make_model, tokens):
    model = make_model("llama")
    held = held_positions(model, tokens[0], lambda: WindowCache(5), prompt=10)
    assert [mask.nonzero().flatten().tolist() for mask in held[0, 0]] == [
        list(range(t - 5, t)) for t in range(10, 17)
    ]


def test_a_plain_cache_cannot_be_traced(make_model, tokens):
    with pytest.raises(
        UserError,
        match=r"DynamicCache holds every token; trace a pruned cache, e.g. H2OCache\(0.2\)",
    ):
        held_positions(make_model("llama"), tokens[0], DynamicCache, prompt=10)
    with pytest.raises(
        UserError, match="prompt 16 is not allowed; use 1 to 15 tokens of each window"
    ):
        held_positions(make_model("llama"), tokens[0], lambda: WindowCache(5), prompt=16)


def test_sinks_that_fill_a_share_of_a_short_prompt(make_model, tokens):
    with pytest.raises(
        UserError, match="sinks 3 leave no room in a budget of 3 tokens; use at most 2"
    ):
        held_positions(make_model("llama"), tokens[0], lambda: WindowCache(0.5, sinks=3), prompt=6)
