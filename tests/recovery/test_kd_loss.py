"""The loss on logits: the divergence and its gradient against other formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebook.recovery.kd_loss import LogitLoss


@pytest.mark.parametrize(
    ("direction", "expected"),
    # teacher (1/2, 1/4, 1/4), student (1/4, 1/4, 1/2)
    [
        ("forward", 0.5 * math.log(2) + 0.25 * math.log(0.5)),
        ("reverse", 0.25 * math.log(0.5) + 0.5 * math.log(2)),
    ],
)
def test_the_divergence_of_three_classes_that_mirror(direction, expected):
    teacher, student = (
        torch.tensor([p], dtype=torch.float64).log() for p in ([0.5, 0.25, 0.25], [0.25, 0.25, 0.5])
    )
    _, kl = LogitLoss.apply(student, teacher, torch.tensor([-100]), direction, 1.0, 0.0)
    assert kl.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("direction", "expected"),
    # teacher (1/2, 1/4, 1/4), student (1/8, 1/8, 3/4)
    [
        ("forward", 0.5 * math.log(4) + 0.25 * math.log(2) + 0.25 * math.log(1 / 3)),
        ("reverse", 0.125 * math.log(1 / 4) + 0.125 * math.log(1 / 2) + 0.75 * math.log(3)),
    ],
)
def test_the_divergence_of_three_classes_by_hand(direction, expected):
    teacher, student = (
        torch.tensor([p], dtype=torch.float64).log()
        for p in ([0.5, 0.25, 0.25], [0.125, 0.125, 0.75])
    )
    loss, kl = LogitLoss.apply(student, teacher, torch.tensor([-100]), direction, 1.0, 0.0)
    assert loss.item() == kl.item() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 100),
    words=st.integers(2, 40),
    seed=st.integers(0, 2**20),
    reverse=st.booleans(),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    next_token=st.sampled_from([0.0, 0.7]),
)
def test_in_pieces_it_is_the_direct_formula(count, words, seed, reverse, temperature, next_token):
    generator = torch.Generator().manual_seed(seed)
    z, r = (
        3 * torch.randn(count, words, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    targets = torch.randint(words, (count,), generator=generator)
    targets[::3] = -100
    z.requires_grad_()
    log_q = F.log_softmax(z / temperature, 1)
    log_p = F.log_softmax(r / temperature, 1)
    inputs = (log_p, log_q) if reverse else (log_q, log_p)
    direct = kl = temperature**2 * F.kl_div(*inputs, reduction="batchmean", log_target=True)
    if next_token and count > 1:
        direct = kl + next_token * F.cross_entropy(z, targets)
    wanted = torch.autograd.grad(2.5 * direct, z)[0]
    loss, divergence = LogitLoss.apply(
        z, r.clone(), targets, "reverse" if reverse else "forward", temperature, next_token
    )
    torch.testing.assert_close((loss, divergence), (direct, kl), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(2.5 * loss, z)[0], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_takes_the_teachers_place(dtype):
    z, r = (torch.randn(40, 50, generator=torch.Generator().manual_seed(i)) for i in range(2))
    student = z.requires_grad_()
    teacher = r.to(dtype)
    kept = teacher.clone()
    loss, _ = LogitLoss.apply(student, teacher, torch.full((40,), -100), "forward", 1.0, 0.0)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(
        gradient, (z.softmax(1) - kept.float().softmax(1)).detach() / 40, rtol=1e-4, atol=1e-7
    )
    assert torch.equal(teacher, kept) is (dtype is not torch.float32)
