"""Learning masks: what is trained at which rate, and a broken run that goes on with the same
result."""

import inspect

import pytest
import torch
from tests.interrupting import interrupted_at

from prunebook.errors import UserError
from prunebook.passes.backward import next_token_loss
from prunebook.recovery.learned_masks import LearnedMasks, learn_masks, train_masks
from prunebook.recovery.training import Training
from prunebook.sparsity.hard_concrete import LIMIT

SIZES = {"neurons": 30, "blocks": 2}
FULL = {"neurons": 48, "blocks": 3}


def learn(model, tokens, mask_rate=0.5, multiplier_rate=1.0, **training):
    return learn_masks(
        model,
        tokens.repeat(2, 1),
        SIZES,
        FULL,
        Training(learning_rate=1e-3, **training),
        ramp=5,
        mask_rate=mask_rate,
        multiplier_rate=multiplier_rate,
    )


def test_masks_start_on_the_limit_and_count_what_is_removed():
    masks = LearnedMasks({"neurons": (3, 48), "blocks": (3,)}, 0)
    assert (masks.log_alpha["neurons"] > LIMIT).all()
    masks.limit()
    assert torch.equal(masks.log_alpha["blocks"], torch.full((3,), LIMIT))
    masks.log_alpha["neurons"].data[0] = -1e3
    masks.limit()
    removed = masks.removed()
    assert removed["blocks"].shape == (1,)
    torch.testing.assert_close(
        removed["neurons"], torch.tensor([0.9537, 0.00202, 0.00202]), atol=1e-4, rtol=1e-2
    )
    assert masks.keep({"neurons": 30, "blocks": 2})["neurons"].sum(1).tolist() == [30, 30, 30]


def test_rates_are_of_masks_and_of_multipliers(make_model, tokens):
    still = learn(make_model("llama"), tokens, mask_rate=0.0)
    assert all((removed == removed[0]).all() for removed in still.course.removed.values())
    assert (still.course.multipliers["neurons"][-1].abs() > 1).all()
    free = learn(make_model("llama"), tokens, multiplier_rate=0.0)
    assert not any(pair.any() for pair in free.course.multipliers.values())


def test_what_does_not_require_gradients_stays(make_model, tokens):
    model = make_model("llama").requires_grad_(False)
    before = make_model("llama")
    learn(model, tokens)
    assert all(
        torch.equal(*pair) for pair in zip(model.parameters(), before.parameters(), strict=True)
    )


def test_a_broken_run_goes_on_with_the_same_result(make_model, tokens, tmp_path, monkeypatch):
    expected = learn(make_model("llama"), tokens)
    training = {"checkpoint": tmp_path / "state", "checkpoint_every": 3}
    breaks = interrupted_at(8, next_token_loss)
    monkeypatch.setitem(inspect.unwrap(train_masks).__kwdefaults__, "loss_of", breaks)
    with pytest.raises(KeyboardInterrupt):
        learn(make_model("llama"), tokens, **training)
    monkeypatch.undo()
    with pytest.raises(UserError, match="is the checkpoint of another run"):
        learn(make_model("llama"), tokens, mask_rate=0.4, **training)
    found = learn(make_model("llama"), tokens, **training)
    assert torch.equal(found.course.loss, expected.course.loss)
    pairs = [(getattr(found, name), getattr(expected, name)) for name in ("masks", "log_alpha")]
    for name in ("removed", "target", "multipliers"):
        pairs.append((getattr(found.course, name), getattr(expected.course, name)))
    for ours, theirs in pairs:
        assert list(ours) == sorted(SIZES)
        assert all(torch.equal(ours[axis], theirs[axis]) for axis in SIZES)


def test_noise_is_drawn_axis_by_axis_in_sorted_order():
    """The order of the draws decides the result, so it must not depend on how sizes are written."""
    one = LearnedMasks({"neurons": (3, 48), "blocks": (3,)}, 0)
    assert list(one.log_alpha) == list(one.sample()) == ["blocks", "neurons"]
