"""Statistics by distinct input: groups, leaders, and the end of a pass."""

import pytest
import torch
from tests.passes.families import Inputs
from torch import nn

from prunebook.passes.collect import EndOfPassError, InputCollector
from prunebook.passes.hooks import forward_pre_hooks


class Block(nn.Module):
    """`a` and `b` read one tensor, `c` an equal one; `unused` never runs."""

    def __init__(self):
        super().__init__()
        for name in ("a", "b", "c", "unused"):
            setattr(self, name, nn.Linear(2, 2))

    def forward(self, x):
        return self.a(x) + self.b(x) + self.c(x.clone())


def run(block, hooks, x):
    named = dict(block.named_children())
    with torch.no_grad(), forward_pre_hooks((named[name], hook) for name, hook in hooks.items()):
        return block(x)


def test_linears_of_one_tensor_are_a_group_and_equal_tensors_are_not():
    block = Block()
    collector = InputCollector(Inputs, lambda statistic, x: statistic.update(x))
    first = torch.ones(3, 2)
    run(block, collector.discovering_hooks(["a", "b", "c", "unused"]), first)
    assert collector.groups == [["a", "b"], ["c"]]
    assert list(collector.statistics) == ["a", "c"]
    assert collector.end_discovery()
    second = torch.zeros(1, 2)
    hooks = collector.leading_hooks(stop_at_last=False)
    assert list(hooks) == ["a", "c"]
    run(block, hooks, second)
    assert not collector.end_discovery()
    assert torch.equal(collector.statistics["a"].all, torch.cat([first, second]))
    assert torch.equal(collector.statistics["c"].all, torch.cat([first, second]))


def test_a_pass_ends_at_the_last_leader():
    block = Block()
    collector = InputCollector(Inputs, lambda statistic, x: statistic.update(x))
    run(block, collector.discovering_hooks("abc"), torch.ones(1, 2))
    hooks = collector.leading_hooks(stop_at_last=True)
    with pytest.raises(EndOfPassError):
        run(block, hooks, torch.ones(1, 2))
    assert len(collector.statistics["c"].seen) == 2


def test_nothing_that_ran_is_no_group():
    collector = InputCollector(Inputs, lambda statistic, x: statistic.update(x))
    assert not collector.end_discovery()
    assert collector.leading_hooks(stop_at_last=True) == {}
