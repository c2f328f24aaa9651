"""Lagrange terms: values by hand, the signs of the ascent, the ramp of targets."""

import pytest
import torch

from prunebook.sparsity.lagrangian import Lagrangian


def stepped(removed: list[float], target: float = 0.3) -> torch.Tensor:
    """Both multipliers after one step of ascent at rate 1."""
    one = Lagrangian({"neurons": target}, 0)
    optimiser = torch.optim.SGD(one.parameters(), lr=1.0, maximize=True)
    one({"neurons": torch.tensor(removed)}, 0).backward()
    optimiser.step()
    return one.multipliers["neurons"].detach()


def test_the_value_by_hand():
    """Rows 0.5 and 0.2 beyond a target of 0.1 by 0.4 and 0.1; means 0.25 and (0.16 + 0.01) / 2."""
    one = Lagrangian({"heads": 0.1, "blocks": 0.5}, 0)
    one.multipliers["heads"].data = torch.tensor([2.0, 3.0])
    one.multipliers["blocks"].data = torch.tensor([1.0, 10.0])
    value = one({"heads": torch.tensor([0.5, 0.2]), "blocks": torch.tensor([0.4])}, 7)
    assert value.item() == pytest.approx(2 * 0.25 + 3 * 0.085 + 1 * -0.1 + 10 * 0.01)


@pytest.mark.parametrize(
    ("removed", "sign"), [([0.4, 0.5], 1), ([0.1, 0.0], -1), ([0.2, 0.3], -1), ([0.3, 0.3], 0)]
)
def test_the_first_multiplier_rises_exactly_when_too_much_goes(removed, sign):
    first, second = stepped(removed)
    assert torch.sign(first.round(decimals=6)) == sign
    assert second >= 0


def test_rows_that_miss_on_both_sides_are_seen_by_the_second_multiplier_alone():
    first, second = stepped([0.1, 0.5])
    assert first.item() == pytest.approx(0, abs=1e-7)
    assert second.item() == pytest.approx(0.04)


def test_descent_in_what_is_removed_goes_towards_the_target():
    """Ascent has made the first multiplier negative while too little went: descent then removes
    more."""
    one = Lagrangian({"neurons": 0.3}, 0)
    one.multipliers["neurons"].data = stepped([0.1, 0.0])
    removed = torch.tensor([0.1, 0.0], requires_grad=True)
    one({"neurons": removed}, 0).backward()
    assert (removed.grad < 0).all()


def test_targets_grow_on_a_line_from_nothing():
    one = Lagrangian({"neurons": 0.4, "blocks": 0.2}, 10)
    assert [one.target("neurons", step) for step in (0, 5, 10, 99)] == pytest.approx(
        [0, 0.2, 0.4, 0.4]
    )
    assert one.target("blocks", 5) == pytest.approx(0.1)
    assert Lagrangian({"neurons": 0.4}, 0).target("neurons", 0) == 0.4


def test_descent_and_ascent_together_meet_the_target():
    """Without a loss beside it, masks of any start settle where the constraint is met."""
    torch.manual_seed(0)
    logits = torch.nn.Parameter(torch.randn(4, 50) + 3)
    one = Lagrangian({"neurons": 0.25}, 50)
    optimiser = torch.optim.AdamW(
        [
            {"params": [logits], "lr": 0.05},
            {"params": [*one.parameters()], "lr": 0.05, "maximize": True},
        ],
        weight_decay=0.0,
    )
    for step in range(600):
        optimiser.zero_grad()
        one({"neurons": torch.sigmoid(-logits).mean(1)}, step).backward()
        optimiser.step()
    assert (torch.sigmoid(-logits).mean() - 0.25).abs() < 0.02
