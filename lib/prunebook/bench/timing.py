"""How samples are taken and summed up: A B A B, medians and percentiles. Knows no device and no
clock."""

from collections.abc import Callable, Mapping, Sequence

from .record import Spread

_SAMPLED = 4e5  # microseconds of samples that a case gets
_FEWEST = 3  # rounds
_MOST = 50


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


def rounds_for(first: Sequence[float], most: int = _MOST) -> int:
    """How many rounds fit a case, given what a first sample took of each that takes part, in
    microseconds."""
    return min(max(int(_SAMPLED / max(sum(first), 1e-9)), _FEWEST), most)


def interleaved(samplers: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Samples of each, taken in turn, so that whatever else happens to the device happens to all of
    them."""
    found = {name: [] for name in samplers}
    for _ in range(rounds):
        for name, sample in samplers.items():
            found[name].append(sample())
    return found
