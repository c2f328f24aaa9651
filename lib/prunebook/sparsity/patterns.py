"""What may be zero: unstructured sparsity and n:m, as exact masks from scores, and a check of real
zeros.

House rules. Sparsity is the fraction removed. A mask is True where the weight is kept; a higher
score means keep. Per comparison group exactly `floor(size * sparsity)` weights go; among equal
scores the lowest index goes first, as in a stable ascending sort. n:m keeps n of every m
consecutive input weights.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import UserError
from ..kernels.masking import apply_mask
from ..kernels.n_of_m import SIZES, keep_n_of_m, select_n_of_m
from ..kernels.scores import Factors, factored_score
from ..kernels.select import keep_largest, select_global, select_rows

SCOPES = ("row", "layer", "model")


def _check_scope(scope: str) -> None:
    if scope not in SCOPES:
        raise UserError(f"scope {scope!r} is unknown; use {', '.join(map(repr, SCOPES))}")


@dataclass(frozen=True)
class Unstructured:
    """Remove the fraction `sparsity`, compared within each output row, each layer, or the whole
    model."""

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
    """Keep `n` of every `m` consecutive weights along the input dimension."""

    n: int
    m: int

    def __post_init__(self):
        if not 0 < self.n < self.m:
            raise UserError(
                f"pattern '{self.n}:{self.m}' is not allowed; n:m keeps n of m, 0 < n < m, as in "
                "'2:4'"
            )

    @property
    def sparsity(self) -> float:
        return 1 - self.n / self.m

    def __str__(self):
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class ExactCount:
    """Remove exactly `removed` of a layer's `size` weights, spread evenly over its rows (scope
    `row`) or wherever scores are lowest (`layer`). What an allocation gives each layer, so that all
    of them meet one global count."""

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
                f"scope {self.scope!r} is not allowed for the budget of one layer; use 'row' or "
                "'layer'"
            )

    @property
    def sparsity(self) -> float:
        return self.removed / self.size

    def __str__(self):
        return f"{self.removed} of {self.size} per {self.scope}"


Pattern = Unstructured | NofM | ExactCount


def make_pattern(
    sparsity: float | None = None, pattern: str | Pattern | None = None, scope: str = "row"
) -> Pattern:
    """The pattern that a user's arguments describe: a sparsity or an n:m text, one of the two.

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
    _check_scope(scope)
    match = re.fullmatch(r"(\d+):(\d+)", str(pattern))
    if not match:
        raise UserError(
            f"pattern {pattern!r} is not allowed; use n:m with 0 < n < m, as in '2:4' or '4:8'"
        )
    return NofM(int(match[1]), int(match[2]))


def check_width(width: int, pattern: Pattern, name: str = "weight") -> None:
    """Raise a `UserError` if n:m does not divide `width` input weights."""
    if isinstance(pattern, NofM) and width % pattern.m:
        raise UserError(
            f"{name} has {width} inputs, which pattern {pattern} does not divide; use another "
            "pattern"
        )


def count_removed(size: int, sparsity: float) -> int:
    """`floor(size * sparsity)`, the number of weights that go from a group.

    The product is taken to 12 digits first: 0.29 of 100 is 29, not the 28 of binary floating point.
    """
    return math.floor(round(size * sparsity, 12 - len(str(size))) if size else 0)


def counts_removed(pattern: Unstructured | ExactCount, groups: int, size: int) -> torch.Tensor:
    """How many weights go from each of `groups` comparison groups of `size` weights, int64
    `[groups]`.

    A `Budget` is spread evenly: the counts differ by one at most and sum to its `removed`.
    """
    if isinstance(pattern, ExactCount):
        if groups * size != pattern.size:
            raise UserError(
                f"a budget for {pattern.size} weights does not fit a layer of {groups * size}"
            )
        return (torch.arange(groups + 1) * pattern.removed // groups).diff()
    return torch.full((groups,), count_removed(size, pattern.sparsity))


def keep_mask(scores: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Mask of one layer.

    Args:
        scores: `[out, in]`, float32 or float64, no NaN.
        pattern: per row, per layer, a budget, or n:m (the scope `model` needs `keep_masks`).

    Returns:
        bool `[out, in]`, True where the weight is kept.

    Raises:
        UserError: NaN scores, a width that n:m does not divide, another layer's budget, or scope
            `model`.
    """
    refuse_nan(scores)
    if isinstance(pattern, NofM):
        check_width(scores.shape[1], pattern)
        return keep_n_of_m(scores, pattern.n, pattern.m)
    if pattern.scope == "model":
        raise UserError(
            "scope 'model' compares all layers; use keep_masks with the scores of every layer"
        )
    rows = scores if pattern.scope == "row" else scores.reshape(1, -1)
    return keep_largest(rows, counts_removed(pattern, *rows.shape)).view(scores.shape)


def keep_masks(scores: Sequence[torch.Tensor], sparsity: float) -> list[torch.Tensor]:
    """Masks of all layers from one ranking over the whole model.

    Ties go in the order of the sequence, then by flat index. Args: scores, each `[out, in]`.

    Raises:
        UserError: NaN scores.
    """
    flat = torch.cat([s.flatten() for s in scores])
    refuse_nan(flat)
    kept = keep_largest(flat[None], count_removed(flat.numel(), sparsity))[0]
    pieces = kept.split([s.numel() for s in scores])
    return [piece.view(s.shape) for piece, s in zip(pieces, scores, strict=True)]


def prune_lowest(weight: torch.Tensor, score: torch.Tensor | Factors, pattern: Pattern) -> None:
    """Set to zero, in place, what `pattern` removes from one layer by a score.

    The same as `weight.masked_fill_(~keep_mask(score, pattern), 0)`, with scores in float32 at
    least. Given a score's factors, on a GPU no scores are written out, and for rows and n:m all of
    it is one kernel.

    Args:
        weight: `[out, in]`.
        score: of any float dtype `[out, in]`, or its factors, see `kernels.scores`.

    Raises:
        UserError: scores of another shape or with NaN, factors whose scores are infinite, a width
            that n:m does not divide, another layer's budget, or scope `model`.
    """
    if isinstance(score, torch.Tensor):
        if score.shape != weight.shape:
            raise UserError(
                f"scores are {list(score.shape)}; a weight {list(weight.shape)} needs one for each "
                "entry"
            )
        wide = score.to(torch.promote_types(score.dtype, torch.float32))
        apply_mask(weight, keep_mask(wide, pattern))
    elif isinstance(pattern, NofM) and pattern.m in SIZES:
        check_width(weight.shape[1], pattern)
        select_n_of_m(weight, pattern.n, pattern.m, score)
    elif isinstance(pattern, NofM) or pattern.scope == "model":
        apply_mask(weight, keep_mask(factored_score(weight, score), pattern))
    elif pattern.scope == "row":
        select_rows(weight, counts_removed(pattern, *weight.shape), score)
    else:
        select_global([weight], int(counts_removed(pattern, 1, weight.numel())), [score])


def refuse_nan(scores: torch.Tensor) -> None:
    if scores.numel() and scores.amax().isnan():  # the maximum of what holds NaN is NaN
        raise UserError("scores hold NaN; weights and calibration activations must be finite")
