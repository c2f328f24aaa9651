"""The kernels of selection against the rule, equal bit by bit, on a GPU or interpreted; compiled
for one."""

import json

import pytest
import torch
from tests.kernels.compiling import DEVICE, compile_apart, needs_triton

from prunebook.errors import UserError
from prunebook.kernels import select_long
from prunebook.kernels.score import Score
from prunebook.kernels.select import select_global_reference, select_rows_reference
from prunebook.kernels.select_long import launch_long
from prunebook.kernels.select_short import launch_short
from prunebook.kernels.selection import keep_largest_reference

pytestmark = needs_triton


def random_weight(rows, width, dtype=torch.float32, seed=0):
    """Rows of several kinds: normal, tied, all equal, zeros of both signs, subnormal, with huge and
    tiny values."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator)
    kinds = (
        lambda row: row.round(),
        lambda row: torch.full_like(row, -3),
        lambda row: torch.zeros_like(row).copysign(row),
        lambda row: row * 1e-39,
        lambda row: (row * 10 ** (3 * row)).clamp(-6e4, 6e4),  # what float16 reaches
    )
    for index in range(1, rows):
        weight[index] = kinds[(index - 1) % len(kinds)](weight[index])
    # whose subnormals Triton's interpreter misreads, up to 3.9
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        weight[weight.abs() < torch.finfo(dtype).tiny] *= 0
    return weight.to(dtype).to(DEVICE)


def factors_of(weight, form, seed=1):
    generator = torch.Generator().manual_seed(seed)
    columns = (torch.rand(weight.shape[1], generator=generator).round(decimals=1) + 0.1).to(DEVICE)
    sums = weight.abs().float().sum(0), weight.abs().float().sum(1)
    column_sums, row_sums = (one.masked_fill(one == 0, 1) for one in sums)
    return {
        "magnitude": Factors(),
        "wanda": Factors(columns),
        "ria": Factors(columns, column_sums, row_sums),
    }[form]


def counts(number, *removed):
    return torch.tensor([removed[index % len(removed)] for index in range(number)])


def assert_same(kernel, reference):
    for name in ("kept", "mask", "bits"):
        ours = getattr(kernel, name)
        theirs = getattr(reference, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or (ours.dtype == theirs.dtype and torch.equal(ours, theirs)), name


@pytest.mark.parametrize(
    ("form", "want"), [("magnitude", "mask"), ("wanda", None), ("ria", "bits")]
)
@pytest.mark.parametrize(
    ("rows", "width", "dtype"),
    [
        (6, 63, torch.float32),
        (6, 576, torch.bfloat16),
        (6, 123, torch.float16),
        (1, 1536, torch.float32),
        (7, 1, torch.float32),
        (2, 17, torch.bfloat16),
    ],
)
def test_rows(rows, width, dtype, form, want):
    weight = random_weight(rows, width, dtype)
    factors = factors_of(weight, form)
    removed = counts(rows, width // 2, width // 3, 1, width - 1, 0, width)
    ours = weight.clone()
    theirs = weight.clone()
    kernel = launch_short(ours, removed, factors, width, True, want)
    assert_same(kernel, select_rows_reference(theirs, removed, factors, width, True, want))
    assert torch.equal(ours, theirs)
    assert torch.equal(kernel.kept.cpu(), width - removed)


@pytest.mark.parametrize(
    ("group", "want"), [(8, "bits"), (4, "bits"), (16, "mask"), (3, "mask"), (24, None)]
)
def test_pieces_of_rows(group, want):
    weight = random_weight(3, 48)
    removed = counts(3 * 48 // group, group // 2, group, 0)
    factors = factors_of(weight, "ria")
    ours = weight.clone()
    theirs = weight.clone()
    kernel = launch_short(ours, removed, factors, group, True, want)
    assert_same(kernel, select_rows_reference(theirs, removed, factors, group, True, want))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("write", [True, False])
def test_a_transposed_weight_is_written_where_it_is(write):
    """Weights of Conv1D are views with long strides between inputs; what lies beside the view
    stays."""
    store = random_weight(40, 9).clone()
    for launch in (launch_short, lambda w, k, f, _, *how: launch_long([w], k, [f], *how)[0]):
        weight = store.clone()
        view = weight[:, 1:8].T  # [7, 40]
        expected = view.clone()
        launch(view, counts(7, 20), Factors(), 40, write, "mask")
        select_rows_reference(expected, counts(7, 20), Factors(), 40, write, "mask")
        assert torch.equal(view, expected)
        assert torch.equal(weight[:, [0, 8]], store[:, [0, 8]])


def test_scores_of_any_sign_with_infinities():
    scores = torch.tensor(
        [
            [
                1.0,
                -0.0,
                0.0,
                -5,
                torch.inf,
                -torch.inf,
                3,
                3,
                -5,
                1e-45,
                -1e-45,
                torch.inf,
                -torch.inf,
            ]
        ]
    )
    scores = scores.to(DEVICE)
    for k in range(14):
        expected = keep_largest_reference(scores, k)
        assert torch.equal(
            launch_short(scores, counts(1, k), None, 13, False, "mask").mask, expected
        )
    for k in (0, 2, 5, 9, 13):
        expected = keep_largest_reference(scores, k)
        assert torch.equal(
            launch_long([scores], counts(1, k), [None], False, "mask")[0].mask, expected
        )


@pytest.fixture(autouse=True)
def small_programs(monkeypatch):
    """Several blocks a row and several programs a group, at sizes that can be interpreted."""
    monkeypatch.setattr(select_long, "_BLOCK", 16)
    monkeypatch.setattr(select_long, "_PROGRAM", 32)


@pytest.mark.parametrize("form", ["magnitude", "ria"])
@pytest.mark.parametrize("share", [0, 0.3, 0.7, 1])
def test_layers_together(form, share):
    """Ties across layers, a row that ends within a block, a layer of one weight, a strided one."""
    layers = [
        random_weight(5, 23),
        random_weight(1, 1),
        random_weight(7, 4, torch.bfloat16).T,
        random_weight(2, 16),
    ]
    layers[3] = layers[3].round()
    factors = [factors_of(layer, form) for layer in layers]
    removed = torch.tensor([int(share * sum(layer.numel() for layer in layers))])
    ours, theirs = ([layer.clone() for layer in layers] for _ in range(2))
    kernel = launch_long(ours, removed, factors, True, "mask")
    for one, other in zip(
        kernel, select_global_reference(theirs, removed, factors, True, "mask"), strict=True
    ):
        assert_same(one, other)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_long_rows():
    weight = random_weight(6, 50)
    factors = factors_of(weight, "wanda")
    removed = counts(6, 25, 0, 50, 13, 49, 1)
    ours = weight.clone()
    theirs = weight.clone()
    (kernel,) = launch_long([ours], removed, [factors], True, "bits")
    assert_same(kernel, select_rows_reference(theirs, removed, factors, 50, True, "bits"))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf])
def test_not_finite(value):
    weight = torch.ones(3, 40, device=DEVICE)
    weight[1, 33] = value
    with pytest.raises(UserError, match="scores of row 1 hold NaN or infinity"):
        launch_short(weight.clone(), counts(3, 2), Factors(), 40, True, None)
    before = weight.clone()
    with pytest.raises(UserError, match=r"^scores hold NaN or infinity"):
        launch_long([weight], counts(1, 5), [Factors()], True, None)
    assert torch.equal(weight.nan_to_num(9, 8), before.nan_to_num(9, 8))


def test_compiled_for_hopper_without_spilling():
    """Only whole rows may need the stack, and little of it; subnormals are not flushed, and
    divisions are rounded."""
    printed = compile_apart(
        """
import contextlib, json, torch
from prunebook.errors import UserError
from prunebook.kernels.score import Score
from prunebook.kernels.select_long import launch_long
from prunebook.kernels.select_short import launch_short
with compiled_for() as found:
    for width in (576, 4096, 11008, 16384):
        weight, columns = torch.ones(8, width, dtype=torch.bfloat16), torch.ones(width)
        ria = Factors(columns, columns, torch.ones(8))
        for factors, want in ((Factors(columns), None), (ria, "bits"), (None, "mask")):
            with contextlib.suppress(UserError):  # no kernel says that scores are finite
                launch_short(weight, torch.full((8,), 3), factors, width, factors is not None, want)
        launch_long([weight], torch.tensor([3]), [ria], True, "mask")
print(json.dumps([(one.name, one.stack, ".ftz" in one.ptx, "div.rn.f32" in one.ptx) for one in found]))
"""
    )
    found = json.loads(printed.splitlines()[-1])
    assert len(found) == 4 * (3 + 6)
    assert max(stack for _, stack, _, _ in found) <= 64
    assert {name for name, stack, _, _ in found if stack} <= {"_select_kernel"}
    assert not any(flushed for _, _, flushed, _ in found)
    assert sum(divides for _, _, _, divides in found) == 4 * (1 + 6)
