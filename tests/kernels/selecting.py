"""What the tests of the selecting kernels share: hard weights, their scores, and comparisons."""

import torch
from tests.kernels.compiling import DEVICE

from prunebook.kernels.score import Score
from prunebook.kernels.topk.rows import select_rows_reference


def random_weight(rows, width, dtype=torch.float32, seed=0):
    """Rows of six kinds: normal, tied, equal, zeros of both signs, subnormal, huge and tiny."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator)
    kinds = (
        lambda row: row.round(),
        lambda row: torch.full_like(row, -3),
        lambda row: torch.zeros_like(row).copysign(row),
        lambda row: row * 1e-39,
        lambda row: (row * 10 ** (3 * row)).clamp(-6e4, 6e4),  # within the range of float16
    )
    for index in range(1, rows):
        weight[index] = kinds[(index - 1) % len(kinds)](weight[index])
    # Triton's interpreter, up to 3.9, misreads subnormals of bfloat16.
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        weight[weight.abs() < torch.finfo(dtype).tiny] *= 0
    return weight.to(dtype).to(DEVICE)


def score_of(weight, name, seed=1):
    """The score of a weight by magnitude, wanda or ria, with tied factors."""
    generator = torch.Generator().manual_seed(seed)
    columns = (torch.rand(weight.shape[1], generator=generator).round(decimals=1) + 0.1).to(DEVICE)
    if name == "magnitude":
        return Score(weight)
    if name == "wanda":
        return Score(weight, columns)
    magnitude = weight.abs().float()
    column_sums = magnitude.sum(0)
    row_sums = magnitude.sum(1)
    return Score(
        weight,
        columns,
        column_sums.masked_fill(column_sums == 0, 1),
        row_sums.masked_fill(row_sums == 0, 1),
    )


def counts(number, *removed):
    """The counts `removed` over and over, one for each of `number` groups."""
    return torch.tensor([removed[index % len(removed)] for index in range(number)])


def assert_same(kernel, reference):
    """Two selections hold the same parts, equal bit by bit."""
    for name in ("kept", "mask", "bits"):
        ours = getattr(kernel, name)
        theirs = getattr(reference, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or (ours.dtype == theirs.dtype and torch.equal(ours, theirs)), name


def scores_of_any_sign():
    """One row of 13 scores with ties, infinities, subnormals and zeros of both signs."""
    inf = torch.inf
    scores = [1.0, -0.0, 0.0, -5, inf, -inf, 3, 3, -5, 1e-45, -1e-45, inf, -inf]
    return torch.tensor([scores], device=DEVICE)


def assert_written_where_it_is(launch, write):
    """`launch(score)` prunes a transposed weight `[7, 40]` like the reference, in its own memory.

    Weights of Conv1D are such views, with long strides between inputs. Without `write` nothing is
    written.
    """
    store = random_weight(40, 9)
    before = store.clone()
    view = store[:, 1:8].T
    expected = view.clone()
    launch(Score(view))
    select_rows_reference(Score(expected), counts(7, 20), 40, write, "mask")
    assert torch.equal(view, expected)
    assert torch.equal(store[:, [0, 8]], before[:, [0, 8]])
