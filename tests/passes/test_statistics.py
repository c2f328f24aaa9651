"""The Hessian and the norm of a linear's input: by hand, streamed, in other precisions."""

import pytest
import torch
from tests.passes.families import Inputs
from tests.passes.streamed import norm_of
from torch import nn

from prunebook.passes.hooks import forward_pre_hooks
from prunebook.passes.statistics import (
    EndOfPassError,
    Hessian,
    InputCollector,
    InputNorm,
    symmetric,
)

CPU = torch.device("cpu")


def hessian_of(*batches: torch.Tensor) -> torch.Tensor:
    statistic = Hessian(batches[0].shape[-1], CPU)
    for batch in batches:
        statistic.update(batch)
    return statistic.matrix()


def test_the_hessian_by_hand():
    # X^T X = [[10, 2], [2, 5]], two sequences
    x = torch.tensor([[[1.0, 2], [0, 1]], [[3, 0], [0, 0]]])
    assert hessian_of(x).tolist() == [[10, 2], [2, 5]]
    assert hessian_of(x[0]).tolist() == [[2, 4], [4, 10]]  # one sequence: 2/1 X^T X


@pytest.mark.parametrize("width", [5, 288, 300, 577])  # below, at and beyond a panel of rows
def test_a_streamed_hessian_is_the_product_in_float64(width):
    inputs = torch.randn(5, 7, width, generator=torch.Generator().manual_seed(width))
    flat = inputs.double().reshape(-1, width)
    expected = 2 / 5 * flat.T @ flat
    for batches in ([inputs], inputs.split(2), inputs.split(1)):
        matrix = hessian_of(*batches)
        assert torch.equal(matrix, matrix.T)
        torch.testing.assert_close(matrix.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_hessian_multiplies_half_precision_in_float32():
    assert hessian_of(torch.full((1, 4, 2), 1000.0, dtype=torch.float16)).tolist() == [
        [8e6, 8e6],
        [8e6, 8e6],
    ]


@pytest.mark.parametrize("width", [5, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fast_hessian_multiplies_inputs_rounded_to_bfloat16_and_sums_in_float32(width, dtype):
    inputs = torch.randn(4, 40, width, generator=torch.Generator().manual_seed(0)).to(dtype)
    hessian = Hessian(width, inputs.device, "fast")
    for batch in inputs.split(3):
        hessian.update(batch)
    x = inputs.bfloat16().double().flatten(0, 1)
    torch.testing.assert_close(hessian.matrix().double(), 2 / 4 * x.T @ x, rtol=1e-5, atol=1e-4)


def test_the_hessian_sees_activations_that_are_not_finite():
    statistic = Hessian(3, CPU)
    statistic.update(torch.ones(2, 4, 3))
    assert statistic.is_finite()
    statistic.update(torch.full((1, 4, 3), float("nan")))
    assert not statistic.is_finite()


@pytest.mark.parametrize("width", [1, 288, 289, 700])  # of one panel, and of several
def test_the_lower_triangle_alone_makes_the_symmetric_matrix(width):
    inputs = torch.randn(
        4 * width, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    whole = inputs.T @ inputs
    lower = whole.tril() + torch.full_like(whole, torch.nan).triu(1)
    assert torch.equal(symmetric(lower), whole.tril() + whole.tril(-1).T)
    assert lower.triu(1).isnan().sum() == width * (width - 1) // 2  # it is not written to


def test_the_norm_by_hand():
    # Two sequences of two tokens: sums of squares 9+16+0+0 = 25 and 0+1+4+4 = 9, over two
    # sequences.
    inputs = torch.tensor([[[3.0, 0], [4, 1]], [[0, 2], [0, -2]]])
    assert norm_of(inputs).tolist() == pytest.approx([12.5**0.5, 4.5**0.5])
    assert norm_of(inputs[0]).tolist() == pytest.approx([5, 1])


def test_a_streamed_norm_is_that_of_one_batch():
    inputs = torch.randn(7, 11, 13, generator=torch.Generator().manual_seed(0)) * 30
    expected = (inputs.double().square().sum((0, 1)) / 7).sqrt()
    for batches in ([inputs], inputs.split(2), inputs.split(1), [inputs[:1], inputs[1:]]):
        torch.testing.assert_close(norm_of(*batches).double(), expected, rtol=1e-6, atol=0)


def test_the_norm_squares_half_precision_in_float32():
    assert norm_of(torch.full((1, 4, 2), 1000.0, dtype=torch.float16)).tolist() == [2000, 2000]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_norm_sees_activations_that_are_not_finite(bad):
    inputs = torch.ones(2, 3, 4)
    statistic = InputNorm(4, CPU)
    statistic.update(inputs)
    assert statistic.is_finite()
    inputs[1, 2, 3] = bad
    statistic.update(inputs)
    assert not statistic.is_finite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fast_norms_are_those_of_float32(dtype):
    inputs = torch.randn(5, 16, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    statistic = InputNorm(7, inputs.device, "fast")
    for batch in inputs.split(2):
        statistic.update(batch)
    expected = (inputs.double().square().sum((0, 1)) / 5).sqrt()
    torch.testing.assert_close(statistic.norm().double(), expected, rtol=1e-6, atol=1e-6)


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
