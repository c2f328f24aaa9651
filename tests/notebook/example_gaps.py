"""Gaps with given numbers, for tests of what is done with them."""

from prunebook.notebook.gaps import Gap


def a_gap(mean: float, error: float = 1.0, *, windows: int = 8, draws: int = 3, **fields) -> Gap:
    """A gap with 10 degrees of freedom, whose 97.5 % quantile of t is 2.228.

    Args:
        mean: mean of the gap.
        error: standard error of the mean.
        windows: number of windows.
        draws: number of draws.
        fields: the other fields of `Gap`.
    """
    return Gap(mean, error, 10.0, windows, draws, **fields)
