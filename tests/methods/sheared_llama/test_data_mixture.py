"""Shares of domains: the update by hand, which windows are trained on, resumption, bad input."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.interrupting import interrupted_at

from prunebook.errors import UserError
from prunebook.methods.sheared_llama import data_mixture
from prunebook.methods.sheared_llama.data_mixture import (
    domain_losses,
    new_shares,
    train_mixture,
)
from prunebook.passes.backward import next_token_loss
from prunebook.recovery.training import Training

THIRDS = torch.full((3,), 1 / 3)


def test_the_update_by_hand():
    """Shares 1/2, 1/4, 1/4 and losses log 2 above, at, and below the reference: 2 : 1/2... of 1 +
    1/4 + 1/4."""
    shares = torch.tensor([0.5, 0.25, 0.25])
    references = torch.tensor([1.0, 2.0, 3.0])
    losses = references + torch.tensor([math.log(2), 0.0, -math.log(2)])
    paper = new_shares(shares, losses, references, smoothing=0)
    torch.testing.assert_close(paper, torch.tensor([1.0, 0.25, 0.25]) / 1.5)
    code = new_shares(shares, losses, references, clamp=False)
    torch.testing.assert_close(code, 0.9999 * torch.tensor([1.0, 0.25, 0.125]) / 1.375 + 1e-4 / 3)


@given(
    st.lists(st.floats(0.01, 10), min_size=2, max_size=6),
    st.floats(-50, 50),
    st.booleans(),
    st.floats(0, 0.5),
)
def test_equal_distances_leave_shares_and_sums_stay_one(weights, excess, clamp, smoothing):
    shares = torch.tensor(weights) / sum(weights)
    references = torch.arange(len(weights)).float()
    after = new_shares(shares, references + excess, references, clamp=clamp, smoothing=smoothing)
    assert after.sum().item() == pytest.approx(1, abs=1e-5)
    assert (after >= smoothing / len(weights) - 1e-7).all()
    torch.testing.assert_close(
        after, (1 - smoothing) * shares + smoothing / len(weights), atol=1e-4, rtol=1e-3
    )


def test_domains_below_their_reference_shrink_only_without_the_clamp():
    shares = THIRDS
    losses = torch.tensor([1.0, 1.0, 0.0])
    references = torch.ones(3)
    for _ in range(20):
        shares = new_shares(shares, losses, references, clamp=False)
    assert shares[2] < 1e-3
    assert shares[2] > 1e-4 / 3  # the floor
    torch.testing.assert_close(new_shares(THIRDS, losses, references), THIRDS)


@pytest.fixture
def mixed(tokens):
    """Three domains of twelve windows: random text, and text that repeats, which is easy."""
    drawn = torch.Generator().manual_seed(0)
    easy = tokens[:1].repeat(12, 1)
    windows = {
        "easy": easy,
        "random": torch.randint(100, (12, 16), generator=drawn),
        "also easy": easy,
    }
    return windows, {domain: of_domain[:3] for domain, of_domain in windows.items()}


def test_constant_shares_are_met_and_dynamic_ones_go_where_the_loss_is(make_model, mixed):
    windows, held_out = mixed
    training = Training(learning_rate=1e-2)
    constant = train_mixture(make_model("llama"), windows, held_out, training, every=3)
    assert constant.drawn.flatten().bincount().tolist() == [4, 4, 4]
    torch.testing.assert_close(constant.shares, THIRDS.expand(5, 3))
    model = make_model("llama")
    references = domain_losses(model, held_out) * torch.tensor([1.0, 0.2, 1.0])
    dynamic = train_mixture(model, windows, held_out, training, references=references, every=3)
    assert dynamic.drawn.flatten().bincount(minlength=3)[1] >= 9
    assert dynamic.losses.shape == dynamic.shares.shape == (5, 3)
    torch.testing.assert_close(dynamic.shares[0], THIRDS)
    torch.testing.assert_close(dynamic.shares[1], new_shares(THIRDS, dynamic.losses[1], references))
    torch.testing.assert_close(dynamic.losses[4], domain_losses(model, held_out))
    assert dynamic.losses[4, 0] < dynamic.losses[0, 0] - 0.5  # what is easy was learned
    assert not model.training


def test_a_broken_run_goes_on_with_the_same_mixture(make_model, mixed, tmp_path, monkeypatch):
    windows, held_out = mixed
    references = torch.tensor([0.5, 3.0, 0.5])
    training = Training(learning_rate=1e-2, checkpoint=tmp_path / "state", checkpoint_every=4)
    whole = make_model("llama")
    broken = make_model("llama")
    expected = train_mixture(
        whole, windows, held_out, Training(learning_rate=1e-2), references=references, every=3
    )
    monkeypatch.setattr(data_mixture, "next_token_loss", interrupted_at(8, next_token_loss))
    with pytest.raises(KeyboardInterrupt):
        train_mixture(broken, windows, held_out, training, references=references, every=3)
    monkeypatch.undo()
    found = train_mixture(
        make_model("llama"), windows, held_out, training, references=references, every=3
    )
    for name in ("loss", "losses", "shares", "drawn"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    monkeypatch.setattr(data_mixture, "next_token_loss", interrupted_at(8, next_token_loss))
    with pytest.raises(KeyboardInterrupt):
        train_mixture(broken, windows, held_out, training, references=references, every=3)
    with pytest.raises(UserError, match="is the checkpoint of another run"):
        train_mixture(broken, windows, held_out, training, references=references + 1, every=3)


def test_domains_that_differ_are_refused(make_model, mixed):
    windows, held_out = mixed
    for wrong in ({"easy": held_out["easy"]}, dict(reversed(held_out.items()))):
        with pytest.raises(UserError, match="must be the same and have windows of one shape"):
            train_mixture(make_model("llama"), windows, wrong, Training())
    with pytest.raises(UserError, match="must be the same"):
        train_mixture(
            make_model("llama"), windows | {"easy": windows["easy"][:2]}, held_out, Training()
        )
