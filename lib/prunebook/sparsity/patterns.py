"""What may be zero: unstructured sparsity and n:m, as exact masks from scores.

Sparsity is the fraction removed. A mask is True where the weight is kept; a higher score means
keep. In each comparison group exactly `floor(size * sparsity)` weights are removed; among equal
scores the lowest index is removed first, as in a stable ascending sort. n:m keeps n of every m
consecutive input weights.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import UserError
from ..kernels.score import Score, comparable, refuse_nan
from ..kernels.topk.n_of_m import SIZES, keep_n_of_m, select_n_of_m
from ..kernels.topk.rows import keep_largest, select_global, select_rows

SCOPES = ("row", "layer", "model")


def _check_scope(scope: str) -> None:
    if scope not in SCOPES:
        raise UserError(f"scope {scope!r} is unknown; use {', '.join(map(repr, SCOPES))}")


@dataclass(frozen=True)
class Unstructured:
    """Remove a fraction of the weights of each comparison group.

    Args:
        sparsity: fraction removed, in [0, 1).
        scope: the comparison group: an output `row`, a `layer` or the `model`.

    Raises:
        UserError: a sparsity or scope that is not allowed.
    """

    sparsity: float
    scope: str = "row"

    def __post_init__(self):
        number = isinstance(self.sparsity, int | float) and not isinstance(self.sparsity, bool)
        if not number or not 0 <= self.sparsity < 1:
            raise UserError(f"sparsity {self.sparsity!r} is not allowed; use a number in [0, 1)")
        _check_scope(self.scope)

    def __str__(self):
        return f"{self.sparsity:.4g} per {self.scope}"


@dataclass(frozen=True)
class NofM:
    """Keep `n` of every `m` consecutive weights along the input dimension.

    Args:
        n: weights kept in a group.
        m: weights in a group.

    Raises:
        UserError: not 0 < n < m.
    """

    n: int
    m: int

    def __post_init__(self):
        if not 0 < self.n < self.m:
            raise UserError(
                f"pattern '{self.n}:{self.m}' is not allowed; n:m keeps n of m, 0 < n < m, "
                "e.g. '2:4'"
            )

    @property
    def sparsity(self) -> float:
        """The fraction removed."""
        return 1 - self.n / self.m

    def __str__(self):
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class ExactCount:
    """Remove an exact number of the weights of one layer.

    An allocation gives one to each layer, so that all layers together meet a global count.

    Args:
        removed: how many weights are removed.
        size: how many weights the layer has.
        scope: `row` spreads the removed weights evenly over the rows; `layer` removes the lowest
            scores wherever they are.

    Raises:
        UserError: more removed than there are, or another scope.
    """

    removed: int
    size: int
    scope: str = "row"

    def __post_init__(self):
        if not 0 <= self.removed <= self.size:
            raise UserError(
                f"removed {self.removed} is not allowed for a layer of {self.size} weights"
            )
        if self.scope not in ("row", "layer"):
            raise UserError(
                f"scope {self.scope!r} is not allowed for the count of one layer; use 'row' or "
                "'layer'"
            )

    @property
    def sparsity(self) -> float:
        """The fraction removed."""
        return self.removed / self.size

    def __str__(self):
        return f"{self.removed} of {self.size} per {self.scope}"


Pattern = Unstructured | NofM | ExactCount


def make_pattern(
    sparsity: float | None = None, pattern: str | Pattern | None = None, scope: str = "row"
) -> Pattern:
    """The pattern that a user's arguments describe: a sparsity or an n:m text, one of the two.

    Args:
        sparsity: fraction removed, in [0, 1).
        pattern: text such as '2:4', or a pattern object, which is returned as it is.
        scope: the comparison group of a sparsity: `row`, `layer` or `model`.

    Raises:
        UserError: both or neither are given, or the text is not `n:m`.
    """
    if (sparsity is None) == (pattern is None):
        raise UserError(
            f"give either sparsity or pattern, not sparsity={sparsity!r} and pattern={pattern!r}"
        )
    if pattern is None:
        return Unstructured(sparsity, scope)
    if isinstance(pattern, Pattern):
        return pattern
    # n:m has no scope, but a misspelt one is an error all the same.
    _check_scope(scope)
    match = re.fullmatch(r"(\d+):(\d+)", str(pattern))
    if not match:
        raise UserError(
            f"pattern {pattern!r} is not allowed; use n:m with 0 < n < m, e.g. '2:4' or '4:8'"
        )
    return NofM(int(match[1]), int(match[2]))


def check_width(width: int, pattern: Pattern, name: str = "weight") -> None:
    """Raise a `UserError` if n:m does not divide the number of inputs.

    Args:
        width: number of inputs of a weight.
        pattern: any pattern; one without groups fits every width.
        name: what the message calls the weight.
    """
    if isinstance(pattern, NofM) and width % pattern.m:
        raise UserError(
            f"{name} has {width} inputs, which pattern {pattern} does not divide; use another "
            "pattern"
        )


def count_removed(size: int, sparsity: float) -> int:
    """`floor(size * sparsity)`, the number of weights removed from a group.

    Args:
        size: weights in the group.
        sparsity: fraction removed.
    """
    if size == 0:
        return 0
    # The product is rounded to 12 digits first: 0.29 of 100 is 29, in binary 28.999999999999996.
    return math.floor(round(size * sparsity, 12 - len(str(size))))


def counts_removed(pattern: Unstructured | ExactCount, groups: int, size: int) -> torch.Tensor:
    """How many weights are removed from each comparison group of a layer.

    Args:
        pattern: a fraction, or an exact count, which is spread evenly: the counts of two groups
            differ by one at most.
        groups: number of groups.
        size: weights in a group.

    Returns:
        int64 `[groups]`.

    Raises:
        UserError: the exact count is that of a layer of another size.
    """
    if isinstance(pattern, ExactCount):
        if groups * size != pattern.size:
            raise UserError(
                f"a count for {pattern.size} weights does not fit a layer of {groups * size}"
            )
        # Group i ends where the share of the first i groups does, rounded down.
        return (torch.arange(groups + 1) * pattern.removed // groups).diff()
    return torch.full((groups,), count_removed(size, pattern.sparsity))


def keep_mask(score: Score | torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """The mask of one layer: what every score method runs, and what its page shows.

    Args:
        score: a `Score`, or scores as a tensor `[out, in]` of a floating-point dtype without NaN.
        pattern: a fraction per row or per layer, an exact count, or n:m. The scope `model` needs
            `keep_masks`.

    Returns:
        bool `[out, in]`, True where the weight is kept.

    Raises:
        UserError: a `Score` that is not finite or a tensor with NaN, no scores of this form, a
            width that n:m does not divide, another layer's count, or scope `model`.
    """
    score = comparable(score)
    rows, width = score.shape
    if isinstance(pattern, NofM):
        check_width(width, pattern)
        return _keep_n_of_m(score, pattern)
    if pattern.scope == "model":
        raise UserError(
            "scope 'model' compares all layers; use keep_masks with the scores of every layer"
        )
    if pattern.scope == "layer":
        # The lowest scores of the whole layer go, whatever each row loses.
        removed = int(counts_removed(pattern, 1, rows * width))
        return _keep_together([score], removed)[0]
    # Every row loses its own count of its lowest scores.
    removed = counts_removed(pattern, rows, width)
    if isinstance(score, Score):
        # The kernel computes scores while it reads the weight, and refuses what is not finite.
        return select_rows(score, removed, write=False, want="mask").mask
    refuse_nan(score)
    return keep_largest(score, removed)


def keep_masks(scores: Sequence[Score | torch.Tensor], sparsity: float) -> list[torch.Tensor]:
    """Masks of all layers from one ranking over the whole model.

    Ties go in the order of the sequence, then by flat index.

    Args:
        scores: one `Score`, or tensor of scores `[out, in]`, for each layer.
        sparsity: fraction of all weights that goes.

    Returns:
        For each layer bool `[out, in]`, True where the weight is kept; no masks for no layers.

    Raises:
        UserError: a `Score` that is not finite or a tensor with NaN, or no scores of this form.
    """
    # Without layers there is nothing to rank.
    if len(scores) == 0:
        return []
    scores = [comparable(score) for score in scores]
    # One count for all layers: floor(weights * sparsity).
    size = sum(score.shape.numel() for score in scores)
    return _keep_together(scores, count_removed(size, sparsity))


def _keep_n_of_m(score: Score | torch.Tensor, pattern: NofM) -> torch.Tensor:
    """The mask of n:m, bool `[out, in]`."""
    if isinstance(score, Score):
        if pattern.m in SIZES:
            # The kernel computes scores while it reads the weight.
            return select_n_of_m(score, pattern.n, pattern.m, write=False, want="mask")
        score = score.dense()
    refuse_nan(score)
    return keep_n_of_m(score, pattern.n, pattern.m)


def _keep_together(scores: Sequence[Score | torch.Tensor], removed: int) -> list[torch.Tensor]:
    """The masks of layers whose weights are compared over all of them.

    Args:
        scores: one `Score`, or tensor of scores `[out, in]`, for each layer.
        removed: how many weights go from all layers together.
    """
    if all(isinstance(score, Score) for score in scores):
        selections = select_global(scores, removed, write=False, want="mask")
        return [selection.mask for selection in selections]
    # Tensors of scores are compared as one long row.
    dense = [score.dense() if isinstance(score, Score) else score for score in scores]
    flat = torch.cat([score.flatten() for score in dense])
    refuse_nan(flat)
    pieces = keep_largest(flat[None], removed)[0].split([score.numel() for score in dense])
    return [piece.view(score.shape) for piece, score in zip(pieces, dense, strict=True)]
