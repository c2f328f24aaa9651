"""Sinks: a padded row has its own, and they leave room in the budget."""

import pytest

from prunebook.caches import WindowCache
from prunebook.errors import UserError


def test_sinks_of_a_padded_row_are_its_own_first_tokens(make_model, padded, generate):
    ids, mask = padded
    model = make_model("llama")
    together = generate(model, ids, WindowCache(5, sinks=2), attention_mask=mask)
    alone = generate(model, ids[1:, 7:], WindowCache(5, sinks=2))
    assert together[1].tolist() == alone[0].tolist()


@pytest.mark.parametrize("sinks", [-1, 1.0, True])
def test_bad_sinks(sinks):
    with pytest.raises(UserError, match=f"sinks {sinks} is not allowed; use a whole number >= 0"):
        WindowCache(5, sinks=sinks)


def test_sinks_that_fill_the_budget():
    with pytest.raises(
        UserError, match="sinks 5 leave no room in a budget of 5 tokens; use at most 4"
    ):
        WindowCache(5, sinks=5)
