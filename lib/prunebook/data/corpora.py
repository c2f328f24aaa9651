"""Text for calibration, evaluation and training, which never overlaps between them.

The embedded text is 106 English Wikipedia articles (CC BY-SA) inside the gensim wheel. Other text
by name: `wikitext`, `c4`, any `datasets` id or folder with a `text` column, or a UTF-8 text file.
"""

import bz2
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import re
from pathlib import Path

from ..errors import UserError, first_line
from ..files import cached, write_atomic

SPLITS = ("calibration", "evaluation", "training")

# The hundredths of a text, or of the hashes of titles, that a split has.
_SHARES = {"calibration": (0, 35), "evaluation": (35, 60), "training": (60, 100)}

# Where the gensim wheel has the articles.
_DUMP = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"

# name -> (datasets id, arguments, split to draw calibration and training text from, split to
# evaluate on)
DATASETS = {
    "wikitext": ("Salesforce/wikitext", {"name": "wikitext-2-raw-v1"}, "train", "test"),
    "c4": (
        "allenai/c4",
        {
            "data_files": {
                "train": "en/c4-train.00000-of-01024.json.gz",
                "validation": "en/c4-validation.00000-of-00008.json.gz",
            }
        },
        "train[:8000]",  # documents; a whole shard is hundreds of megabytes of text
        "validation[:4000]",
    ),
}

# Marks of image captions that lost their link.
_IMAGE = re.compile(r"\|(?:alt=|thumb|\d+px)|\.(?:jpe?g|png|svg|gif)\b", re.I)

# Fewest words of a line of prose: shorter lines of the dump are captions, table cells and links.
_MIN_WORDS = 8

# This module as it was imported: cached articles belong to the code that extracted them.
_OWN_CODE = Path(__file__).read_bytes()

# File of the articles in the cache.
_ARTICLES = "articles.json"


def clean(text: str) -> str:
    """The prose lines of a wiki page after `filter_wiki`.

    Quotes, bullets and empty brackets that the filter leaves are removed; headings and lines under
    eight words are dropped.
    """
    lines = []
    for line in text.splitlines():
        line = re.sub(r"'{2,}", "", line)
        line = re.sub(r"<[^<>]*>|&nbsp;|\{\{|\}\}|\[\[|\]\]", " ", line)
        line = line.lstrip("*#:;,. ").strip()
        line = re.sub(r"\(\s*(?:[,;:]\s*)+", "(", line)
        line = re.sub(r"(?:,\s*){2,}", ", ", line)
        line = re.sub(r"\(\s*\)|\[\s*\]", "", line)
        line = re.sub(r"\s+([,.;:!?)])", r"\1", line)
        line = re.sub(r"\s{2,}", " ", line)
        if (
            not line.startswith(("=", "|", "!", "{"))
            and not _IMAGE.search(line)
            and len(line.split()) >= _MIN_WORDS
        ):
            lines.append(line)
    return "\n".join(lines)


def split_of(title: str) -> str:
    """The split of an article: a fixed hash of its title, so that splits never share one."""
    value = int.from_bytes(hashlib.sha256(title.encode()).digest()[:8], "big") % 100
    return next(split for split, (low, high) in _SHARES.items() if low <= value < high)


@functools.cache
def embedded_articles() -> tuple[tuple[str, str], ...]:
    """`(title, text)` of every article of the embedded dump that has prose, in the dump's order.

    They are extracted once and kept in the user's cache.
    """
    articles = cached(
        "articles",
        embedded_identity(),
        lambda folder: write_atomic(folder / _ARTICLES, json.dumps(_extract_articles())),
        lambda folder: json.loads((folder / _ARTICLES).read_text(encoding="utf-8")),
    )
    return tuple((title, text) for title, text in articles)


def _extract_articles() -> list[tuple[str, str]]:
    """The articles from the dump inside the gensim wheel."""
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki

    dump = Path(importlib.util.find_spec("gensim").origin).parent / _DUMP
    with bz2.open(dump) as file:
        pages = [(title, text) for title, text, _ in extract_pages(file, ("0",))]
    articles = []
    for title, source in pages:
        if re.match(r"\s*#redirect", source, re.I):
            continue
        if text := clean(filter_wiki(source)):
            articles.append((title, text))
    return articles


def embedded_identity() -> list[str | bytes]:
    """What the embedded articles depend on: the wheel that carries them and the code of this
    module."""
    return [importlib.metadata.version("gensim"), _OWN_CODE]


def text_of(split: str, text: str | Path | None = None) -> str:
    """The text of one split, articles or documents joined by a blank line.

    Args:
        split: `calibration`, `evaluation` or `training`.
        text: None for the embedded articles; `wikitext`, `c4`, a `datasets` id or folder; a UTF-8
            file (its first 35 % of lines are calibration, the next 25 % evaluation, the rest
            training).

    Returns:
        The text as one string.

    Raises:
        UserError: unknown split, unreadable text, or a dataset that this machine cannot reach.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; use {', '.join(SPLITS)}")
    if text is None:
        return "\n\n".join(body for title, body in embedded_articles() if split_of(title) == split)
    if Path(text).is_file():
        return _file_text(Path(text), split)
    return _dataset_text(str(text), split)


def _file_text(path: Path, split: str) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"text file {path} cannot be read as UTF-8: {error}") from error
    low, high = (len(lines) * share // 100 for share in _SHARES[split])
    return "\n".join(lines[low:high])


def _dataset_text(name: str, split: str) -> str:
    if importlib.util.find_spec("datasets") is None:
        raise UserError(
            f"text {name!r} needs the datasets package: run `pip install prunebook[hub]`"
        )
    import datasets

    source, arguments, source_split, test = DATASETS.get(name, (name, {}, "train", "test"))
    if split == "evaluation":
        source_split = test
    try:
        data = datasets.load_dataset(source, split=source_split, **arguments)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = first_line(error)
        raise UserError(
            f"text {name!r} cannot be loaded ({reason}); use the embedded text (no name), a UTF-8 "
            f"file, {', '.join(DATASETS)}, or a `datasets` id with the splits train and test"
        ) from error
    if "text" not in data.column_names:
        raise UserError(
            f"text {name!r} has the columns {', '.join(data.column_names)}; a column 'text' is "
            "needed"
        )
    rows = [row for row in data["text"] if row.strip()]
    # Calibration and training share a split of the source: its first and its second half.
    half = len(rows) // 2
    rows_of = {"evaluation": rows, "calibration": rows[:half], "training": rows[half:]}
    return "\n\n".join(rows_of[split])
