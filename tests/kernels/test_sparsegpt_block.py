"""SparseGPT's block sweep: reference and kernel by hand, beside a float64 loop, on ties, odd shapes
and strides."""

import re

import pytest
import torch
from tests.kernels.compiling import DEVICE, compile_apart, needs_triton
from tests.refusals import refused_in_one_line

from prunebook.errors import UserError
from prunebook.kernels import sparsegpt_block as module
from prunebook.kernels.sparsegpt_block import (
    launch_block,
    sparsegpt_block,
    sparsegpt_block_reference,
)
from prunebook.methods.sparsegpt import column_sweep
from prunebook.methods.sparsegpt.column_sweep import sparsegpt_update
from prunebook.sparsity.patterns import NofM, Unstructured

pytestmark = pytest.mark.usefixtures("nan_memory")
both = pytest.mark.parametrize(
    "sweep",
    [sparsegpt_block_reference, pytest.param(launch_block, marks=needs_triton)],
    ids=["reference", "kernel"],
)
PATTERNS = [(2, 4), (1, 4), (4, 8), (8, 16)]


def problem(columns, rows, seed=0):
    """W `[columns, rows]`, a mask of half of it, and U of correlated inputs, below its diagonal
    NaN."""
    generator = torch.Generator().manual_seed(seed)
    mixing = (
        torch.eye(columns) + 0.5 * torch.randn(columns, columns, generator=generator) / columns**0.5
    )
    inputs = (torch.randn(5 * columns + 5, columns, generator=generator) @ mixing).double()
    U = torch.linalg.cholesky(torch.linalg.inv(inputs.T @ inputs), upper=True).float()
    U[torch.ones_like(U, dtype=torch.bool).tril(-1)] = float("nan")
    W, chance = torch.randn(2, columns, rows, generator=generator)
    return W.to(DEVICE), (chance > 0).to(DEVICE), U.to(DEVICE)


def plain(W, keep, U, n_of_m=None):
    """Algorithm 1 in float64, every later column updated at once: `(W, keep, E)`."""
    W = W.double()
    keep = keep.clone()
    U = U.triu().nan_to_num().double()
    E = torch.zeros_like(W)
    for j in range(len(W)):
        if n_of_m and j % n_of_m[1] == 0:
            n, m = n_of_m
            order = (
                (W[j : j + m] / U.diagonal()[j : j + m, None]).square().argsort(dim=0, stable=True)
            )
            keep[j : j + m] = torch.zeros_like(order, dtype=torch.bool).scatter_(
                0, order[m - n :], True
            )
        E[j] = torch.where(keep[j], 0, W[j] / U[j, j])
        W[j:] -= U[j, j:, None] * E[j]
        W[j, ~keep[j]] = 0
    return W, keep, E


def check(sweep, W, keep, U, n_of_m=None):
    """Sweep copies and compare with `plain`; returns new weight, mask and errors."""
    new = W.clone()
    mask = keep.clone()
    E = sweep(new, mask, U, n_of_m)
    expected, chosen, errors = plain(W, keep, U, n_of_m)
    assert torch.equal(mask, chosen)
    assert (new[~mask] == 0).all()
    assert (E[mask] == 0).all()
    torch.testing.assert_close(new.double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(E.double(), errors, rtol=1e-4, atol=1e-6 * errors.abs().max().item())
    return new, mask, E


@both
def test_one_row_of_two_columns_by_hand(sweep):
    # H = [[2, 1], [1, 2]] has the inverse [[2, -1], [-1, 2]] / 3 = U^T U. The loss is 1.5 = e_0^2.
    U = torch.tensor([[(2 / 3) ** 0.5, -((1 / 6) ** 0.5)], [0, 0.5**0.5]], device=DEVICE)
    W = torch.tensor([[1.0], [3]], device=DEVICE)
    keep = torch.tensor([[False], [True]], device=DEVICE)
    E = sweep(W, keep, U, None)
    assert W.flatten().tolist() == [0, pytest.approx(3.5)]
    assert E.flatten().tolist() == [pytest.approx(1.5**0.5), 0]


@both
def test_the_choice_sees_what_earlier_groups_changed(sweep):
    """1:2 of (1, 2 | 5, 4): 1 goes and lifts 4 to 6, so that 5 goes and not 4."""
    U = torch.eye(4, device=DEVICE)
    U[0, 3] = -2
    W = torch.tensor([[1.0], [2], [5], [4]], device=DEVICE)
    keep = torch.ones(4, 1, dtype=torch.bool, device=DEVICE)
    E = sweep(W, keep, U, (1, 2))
    assert W.flatten().tolist() == [0, 2, 0, 6]
    assert E.flatten().tolist() == [1, 0, 5, 0]
    assert keep.flatten().tolist() == [False, True, False, True]


@both
@pytest.mark.parametrize(
    ("columns", "rows"), [(1, 1), (1, 40), (2, 3), (17, 33), (63, 7), (128, 1)]
)
def test_a_given_mask(sweep, columns, rows):
    check(sweep, *problem(columns, rows))


@both
@pytest.mark.parametrize(("columns", "rows"), [(16, 1), (48, 35)])
@pytest.mark.parametrize("n_of_m", PATTERNS, ids=str)
def test_a_chosen_mask(sweep, n_of_m, columns, rows):
    n, m = n_of_m
    keep = check(sweep, *problem(columns, rows, seed=m), n_of_m)[1]
    assert (keep.unflatten(0, (-1, m)).sum(1) == n).all()


@both
def test_a_full_block_of_weights_from_bfloat16(sweep):
    """Masks agree but for rounding at near ties; the loss, tr(dW H dW^T) with H the inverse of U^T
    U, is the same."""
    W, keep, U = problem(128, 48)
    W = W.bfloat16().float()
    new = W.clone()
    mask = keep.clone()
    E = sweep(new, mask, U, (2, 4))
    expected, chosen, errors = plain(W, keep, U, (2, 4))
    assert (mask == chosen).double().mean() >= 0.999
    assert torch.equal(new == 0, ~mask)
    assert (~mask).sum() == 128 * 48 // 2
    inverse = torch.linalg.inv(U.triu().nan_to_num().double())
    found, least = (
        (change.double().T @ inverse).square().sum() for change in (new - W, expected - W)
    )
    assert found.item() == pytest.approx(least.item(), rel=1e-3)
    assert E.double().square().sum().item() == pytest.approx(errors.square().sum().item(), rel=1e-3)


@both
@pytest.mark.parametrize("value", [0.0, -0.0, 3.0])
def test_of_equal_scores_the_first_go(sweep, value):
    W = torch.full((16, 5), value, device=DEVICE)
    W[:, 2:] *= -1
    keep = torch.ones_like(W, dtype=torch.bool)
    E = sweep(W, keep, torch.eye(16, device=DEVICE), (3, 8))
    assert torch.equal(keep, (torch.arange(16, device=DEVICE) % 8 >= 5)[:, None].expand(16, 5))
    assert torch.equal(W == 0, ~keep | (value == 0))
    assert torch.equal(E.abs(), torch.where(keep, 0, abs(value)))


@both
@pytest.mark.parametrize("n_of_m", [None, (2, 4)], ids=str)
def test_rows_of_zeros_and_dead_columns(sweep, n_of_m):
    W, keep, U = problem(20, 9)
    dead = torch.tensor([0, 7, 19], device=DEVICE)
    U[dead], U[:, dead] = 0.0, 0.0
    U[dead, dead], W[dead], W[:, [2, 8]] = 1.0, 0.0, 0.0
    new, mask, E = check(sweep, W, keep, U, n_of_m)
    assert (new[dead] == 0).all()
    assert (E[dead] == 0).all()
    assert (new[:, [2, 8]] == 0).all()
    assert n_of_m is None or not mask[0].any()  # nothing scores lower


@both
@pytest.mark.parametrize("n_of_m", [None, (4, 8)], ids=str)
def test_strides_do_not_matter(sweep, n_of_m):
    W, keep, U = problem(24, 34)
    expected = W.clone()
    mask = keep.clone()
    E = sweep(expected, mask, U, n_of_m)
    views = (
        torch.zeros(34, 48, device=DEVICE)[:, ::2].T,
        torch.zeros(24, 68, dtype=torch.bool, device=DEVICE)[:, ::2],
    )
    views[0].copy_(W), views[1].copy_(keep)
    wide = torch.full((31, 29), float("nan"), device=DEVICE)
    wide[5:29, 5:] = U
    torch.testing.assert_close(sweep(*views, wide[5:29, 5:], n_of_m), E)
    torch.testing.assert_close(views[0], expected)
    assert torch.equal(views[1], mask)
    across = U.T.contiguous().T
    torch.testing.assert_close(sweep(W, keep, across, n_of_m), E)


@both
def test_no_rows(sweep):
    W, keep, U = problem(8, 3)
    assert sweep(W[:, :0], keep[:, :0], U, (2, 4)).shape == (8, 0)


@needs_triton
@pytest.mark.parametrize("pattern", [Unstructured(0.5, "layer"), NofM(2, 4)], ids=str)
def test_a_whole_layer_through_the_kernel(monkeypatch, pattern):
    """72 columns in blocks of 32: two and a quarter."""
    generator = torch.Generator().manual_seed(3)
    inputs, weight = (torch.randn(n, 72, generator=generator).to(DEVICE) for n in (500, 33))
    expected, mask = sparsegpt_update(
        weight.cpu(), (inputs.T @ inputs).cpu(), pattern, block_size=32
    )
    monkeypatch.setattr(column_sweep, "sparsegpt_block", launch_block)
    new, keep = sparsegpt_update(weight, inputs.T @ inputs, pattern, block_size=32)
    assert torch.equal(keep.cpu(), mask)
    torch.testing.assert_close(new.cpu(), expected, rtol=1e-4, atol=1e-5)


def test_what_runs_where(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "launch_block", lambda *a: calls.append(("kernel", a[3])))
    monkeypatch.setattr(
        module, "sparsegpt_block_reference", lambda *a: calls.append(("reference", a[3]))
    )
    for native in (False, True):
        monkeypatch.setattr(module, "runs_natively", lambda *_, native=native, **__: native)
        for n_of_m in (None, (2, 4), (1, 3)):
            sparsegpt_block(*problem(12, 2), n_of_m)
    assert calls == [
        ("reference", None),
        ("reference", (2, 4)),
        ("reference", (1, 3)),
        ("kernel", None),
        ("kernel", (2, 4)),
        ("reference", (1, 3)),
    ]


def test_any_m_has_the_reference():
    check(sparsegpt_block, *problem(45, 80), (1, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"W": torch.zeros(4, 3, dtype=torch.float64)},
            "W is torch.float64 [4, 3]; use torch.float32 [columns, rows]",
        ),
        ({"W": torch.zeros(4)}, "W is torch.float32 [4]; use torch.float32 [columns, rows]"),
        (
            {"keep": torch.ones(4, 3)},
            "keep is torch.float32 [4, 3] on cpu; this W needs torch.bool [4, 3] on cpu",
        ),
        (
            {"U": torch.eye(3)},
            "U is torch.float32 [3, 3] on cpu; this W needs torch.float32 [4, 4] on cpu",
        ),
        (
            {"U": torch.eye(4, device="meta")},
            "U is torch.float32 [4, 4] on meta; this W needs torch.float32 [4, 4] on",
        ),
        (
            {"n_of_m": (2, 3)},
            "n_of_m 2:3 is not allowed for 4 columns; use 0 < n < m, m a divisor of them",
        ),
        ({"n_of_m": (4, 4)}, "n_of_m 4:4 is not allowed for 4 columns"),
    ],
)
def test_bad_input_is_one_line(change, message):
    given = {
        "W": torch.zeros(4, 3),
        "keep": torch.ones(4, 3, dtype=torch.bool),
        "U": torch.eye(4),
        "n_of_m": None,
    }
    with refused_in_one_line(re.escape(message)):
        sparsegpt_block(**given | change)


@pytest.mark.parametrize("pattern", [Unstructured(0.5, "layer"), NofM(2, 4)], ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_once_a_layer(pattern, bad):
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    H = 2 * torch.eye(8)
    message = "weights or calibration inputs hold NaN or infinity; SparseGPT needs finite ones"
    weight[1, 7] = bad
    with pytest.raises(UserError, match=f"^{message}$"):
        sparsegpt_update(weight, H, pattern)
    H[3, 3] = bad
    with pytest.raises(UserError, match=r"^(the Hessian|weights) [^\n]+$"):
        sparsegpt_update(weight.nan_to_num(0, 0, 0), H, pattern)


@needs_triton
def test_it_compiles_for_hopper_without_spills():
    """A thread a row: nothing crosses threads but the operands of the product between strips."""
    code = """
import torch
from prunebook.kernels.sparsegpt_block import launch_block
for n_of_m in (None, (2, 4), (4, 8), (8, 16)):
    W, U = torch.zeros(128, 4096), torch.eye(576)[128:256, 128:256]
    with compiled_for() as found:
        launch_block(W, W == 0, U, n_of_m)
    print(found[0].registers, found[0].stack, found[0].ptx.count("shfl"))
"""
    for line in compile_apart(code).splitlines():
        registers, stack, shuffles = map(int, line.split())
        assert registers <= 255
        assert stack == 0
        assert shuffles == 0
