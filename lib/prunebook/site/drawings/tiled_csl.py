"""Drawings of Flash-LLM's page: a tile of Tiled-CSL, its banks, storage, bounds under a roof."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from ...bench.work import Work, dense_product
from ...notebook.palette import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW
from .canvas import EMPTY, INK, LINE, SMALL, TEXT, Drawing, as_array, bare

_GREY = "#555555"
_CHUNK = 8  # columns that change places together
_CHUNKS = np.array(
    [to_rgb(c) for c in (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW, _GREY)]
)
_LOOKS = (
    (BLUE, "o"),
    (ORANGE, "s"),
    (GREEN, "^"),
    (VERMILION, "D"),
    (PURPLE, "P"),
    (SKY, "v"),
    (INK, "X"),
)


def tile(kept, locations, word: int, entry: tuple[int, int]) -> Drawing:
    """The first rows of a tile in the matrix and in shared memory; below them a word.

    Args:
        kept: bool `[rows, 64]`, True where a word is stored.
        locations: `[rows, 64]`, where each word lies in shared memory.
        word: the 32 bits of one word.
        entry: row and column of that word, framed in both pictures.
    """
    kept = as_array(kept, 2, "kept")
    locations = as_array(locations, 2, "locations")
    rows, columns = kept.shape
    chunk = np.broadcast_to(np.arange(columns) // _CHUNK, kept.shape)
    before = np.where(kept[..., None], _CHUNKS[chunk], to_rgb(EMPTY))
    after = np.empty_like(before)
    after.reshape(-1, 3)[locations.flatten()] = before.reshape(-1, 3)
    figure = Drawing(4)
    places = {
        "in the matrix": (before, entry),
        "in shared memory": (after, divmod(locations[entry], columns)),
    }
    axes = figure.subplots(3, 1, height_ratios=(rows, rows, 7))
    for axis, (title, (picture, (row, column))) in zip(axes, places.items(), strict=False):
        axis.imshow(picture, interpolation="nearest", extent=(0, columns, rows, 0))
        axis.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=INK, linewidth=2))
        axis.set_xticks(
            range(0, columns + 1, _CHUNK), range(0, columns + 1, _CHUNK), fontsize=SMALL - 1
        )
        axis.set_yticks([0.5, rows - 0.5], [0, rows - 1], fontsize=SMALL - 1)
        axis.set_title(title, fontsize=TEXT)
        axis.set_ylabel("row", fontsize=SMALL)
    _word(axes[2], word, entry, locations[entry])
    return figure


def _word(axis, word: int, entry: tuple[int, int], location: int) -> None:
    """The bits of a word, highest first."""
    for i, bit in enumerate(f"{word & 0xFFFFFFFF:032b}"):
        colour = (SKY, ORANGE)[i // 16]
        axis.add_patch(Rectangle((i, -1), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
        axis.text(i + 0.5, -0.5, bit, fontsize=SMALL - 1, ha="center", va="center")
    axis.text(8, -1.2, f"location {location}", fontsize=SMALL, ha="center", va="top")
    axis.text(24, -1.2, "value, float16", fontsize=SMALL, ha="center", va="top")
    bare(axis, 32, 2.4, f"the word of row {entry[0]}, column {entry[1]}")


def banks(loads: Mapping) -> Drawing:
    """How many of the words that lanes store at a time go to each bank.

    Args:
        loads: title -> words in each bank, `[groups, 32]`, of the same words in different orders.
    """
    loads = {title: as_array(words, 2, f"loads {title!r}") for title, words in loads.items()}
    most = int(max(words.max() for words in loads.values()))
    figure = Drawing(3.8)
    shades = {"cmap": "Blues", "vmin": -0.5, "vmax": most + 0.5}
    axes = figure.subplots(1, len(loads), sharey=True, squeeze=False)[0]
    for axis, (title, words) in zip(axes, loads.items(), strict=True):
        picture = axis.imshow(words, aspect="auto", interpolation="nearest", **shades)
        axis.set_title(f"{title}\n{words.max(1).mean():.2f} stores a group", fontsize=TEXT)
        axis.set_xlabel("bank", fontsize=SMALL)
        axis.set_xticks([0, 15, 31])
    axes[0].set_ylabel("group of 32 lanes", fontsize=SMALL)
    edges = np.arange(most + 2) - 0.5
    bar = figure.colorbar(
        picture, ax=axes, location="bottom", ticks=range(most + 1), boundaries=edges
    )
    bar.set_label("words into the bank", fontsize=SMALL)
    return figure


def storage(
    formats: Mapping[str, Callable], measured: Mapping[str, Mapping[float, float]]
) -> Drawing:
    """Stored bits a weight against sparsity: formulas as lines, packed layers as points.

    Args:
        formats: name -> function from an array of densities (1 - sparsity) to bits a weight.
        measured: name -> sparsity -> bits a weight.
    """
    density = np.linspace(0.6, 0.02, 100)
    figure = Drawing(4.6)
    axis = figure.subplots()
    axis.axhline(16, color=INK, linewidth=1, linestyle="--", label="dense, 16 bits")
    for i, ((name, bits), (colour, marker)) in enumerate(
        zip(formats.items(), _LOOKS, strict=False)
    ):
        # Dashed and solid lines alternate, so that lines on top of each other are both seen.
        look = {"color": colour, "linestyle": ((0, (4, 4)), "-")[i % 2]}
        axis.plot(100 * (1 - density), np.broadcast_to(bits(density), density.shape), **look)
        points = measured.get(name, {})
        axis.plot(
            [100 * s for s in points], list(points.values()), marker, color=colour, fillstyle="none"
        )
        axis.plot([], [], marker=marker, fillstyle="none", label=name, **look)
    axis.set(xlabel="zeros [%]", ylabel="stored bits a weight", ylim=(0, 24), xlim=(40, 98))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=SMALL - 1)
    return figure


def bounds(
    shape: tuple[int, int],
    tokens: Sequence[int],
    sparsities: Sequence[float],
    *,
    bandwidth: float,
    arithmetic: float,
) -> Drawing:
    """What a product reaches at most, dense and with 32 bits for each weight that is not zero.

    Above are operations a second under a roof; below is how much faster than the dense product
    each sparse one is, from one token to many.

    Args:
        shape: outputs and inputs of the weight.
        tokens: numbers of tokens that are marked under the roof.
        sparsities: the fractions removed, a line each.
        bandwidth: measured bytes a second.
        arithmetic: measured operations a second.
    """
    figure = Drawing(6.8)
    roof, gain = figure.subplots(2, 1)
    ridge = arithmetic / bandwidth
    x = np.geomspace(0.5, 20 * max(max(tokens), ridge), 200)
    reached = np.minimum(x * bandwidth, arithmetic) / 1e9
    roof.plot(x, reached, color=INK, linewidth=1.5, label="roof, measured")
    roof.axvline(ridge, color=LINE, linestyle=":", label=f"ridge, {ridge:.0f} FLOP/B")
    many_tokens = np.unique(np.geomspace(1, 4 * max(*tokens, ridge), 60).round())
    dense = np.array([_work(shape, n, None).floor(bandwidth, arithmetic) for n in many_tokens])
    for (colour, marker), sparsity in zip(_LOOKS, (None, *sparsities), strict=False):
        works = [_work(shape, n, sparsity) for n in tokens]
        label = "dense"
        if sparsity is not None:
            label = f"{sparsity:.0%} zeros"
            times = [_work(shape, n, sparsity).floor(bandwidth, arithmetic) for n in many_tokens]
            gain.plot(many_tokens, dense / times, marker + "-", color=colour, markersize=2)
        roof.plot(
            [work.intensity for work in works],
            [work.flop / work.floor(bandwidth, arithmetic) / 1e9 for work in works],
            marker,
            color=colour,
            markersize=5,
            label=label,
        )
    _finish_bounds(figure, roof, gain)
    return figure


def _finish_bounds(figure: Drawing, roof, gain) -> None:
    """Scales, labels, grids and the legend of `bounds`."""
    roof.set(
        xscale="log", yscale="log", xlabel="operations a byte [FLOP/B]", ylabel="at most [GFLOP/s]"
    )
    gain.set(
        xscale="log",
        xlabel="tokens N (log scale)",
        ylabel="speed-up over dense at most",
        ylim=(0, None),
    )
    gain.axhline(1, color=INK, linewidth=1, linestyle="--")
    for axis in (roof, gain):
        axis.grid(alpha=0.3)
    handles, labels = roof.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=SMALL - 1)


def _work(shape: tuple[int, int], tokens: float, sparsity: float | None) -> Work:
    """The work of the product, dense where `sparsity` is None."""
    bits = 16
    if sparsity is not None:
        bits = 32 * (1 - sparsity)
    return dense_product(int(tokens), *shape, bits)
