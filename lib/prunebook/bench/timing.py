"""How samples are taken in turn, A B A B, and summed up by percentiles.

This file knows no device and no clock.
"""

from collections.abc import Callable, Mapping, Sequence

from .record import Spread

_SAMPLED = 4e5  # microseconds of samples that a case gets
_FEWEST_ROUNDS = 3
_MOST_ROUNDS = 50


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which a `share` of the samples lies, interpolated between neighbours."""
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def spread(samples: Sequence[float]) -> Spread:
    """Median, 20th and 80th percentile."""
    return Spread(*(percentile(samples, share) for share in (0.5, 0.2, 0.8)))


def rounds_for(first: Sequence[float], most: int = _MOST_ROUNDS) -> int:
    """How many rounds of samples fit a case.

    Args:
        first: microseconds that a first sample of each implementation took.
        most: largest number of rounds.
    """
    return min(max(int(_SAMPLED / max(sum(first), 1e-9)), _FEWEST_ROUNDS), most)


def interleaved(samplers: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Samples of each, taken in turn, so that any disturbance of the device meets all of them."""
    samples = {name: [] for name in samplers}
    for _ in range(rounds):
        for name, sample in samplers.items():
            samples[name].append(sample())
    return samples
