"""Token streams for calibration, evaluation and training, from text that never overlaps between
them.

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

import torch
from safetensors.torch import load_file, save_file

from .cached import cached
from .errors import UserError, first_line
from .files import write_atomic

SPLITS = ("calibration", "evaluation", "training")
# Of 100 hash values: below 35 calibration, below 60 evaluation, the rest training.
_SHARES = {"calibration": (0, 35), "evaluation": (35, 60), "training": (60, 100)}
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
# captions that lost their link
_IMAGE = re.compile(r"\|(?:alt=|thumb|\d+px)|\.(?:jpe?g|png|svg|gif)\b", re.I)
_OWN_CODE = Path(__file__).read_bytes()  # as it was imported
_ARTICLES = "articles.json"  # files in the cache
_STREAM = "tokens.safetensors"
_MIN_WORDS = 8  # shorter lines of the dump are captions, table cells and link lists


def clean(text: str) -> str:
    """Prose lines of a wiki page after `filter_wiki`: quotes, bullets and empty brackets that the
    filter leaves are removed, headings and lines under eight words dropped."""
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
        _embedded_identity(),
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
    cleaned = [
        (t, clean(filter_wiki(x))) for t, x in pages if not re.match(r"\s*#redirect", x, re.I)
    ]
    return [(title, text) for title, text in cleaned if text]


def _embedded_identity() -> list[str | bytes]:
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

    source, arguments, train, test = DATASETS.get(name, (name, {}, "train", "test"))
    try:
        data = datasets.load_dataset(
            source, split=test if split == "evaluation" else train, **arguments
        )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = first_line(error)
        raise UserError(
            f"text {name!r} cannot be loaded ({reason}); use the embedded text (no name), a "
            f"UTF-8 file, "
            f"{', '.join(DATASETS)}, or a `datasets` id with the splits train and test"
        ) from error
    if "text" not in data.column_names:
        raise UserError(
            f"text {name!r} has the columns "
            f"{', '.join(data.column_names)}; "
            f"a column 'text' "
            f"is needed"
        )
    rows = [row for row in data["text"] if row.strip()]
    # Calibration and training share a split of the source: its first and its second half.
    half = len(rows) // 2
    return "\n\n".join(
        {"evaluation": rows, "calibration": rows[:half], "training": rows[half:]}[split]
    )


def _windows(
    tokenizer, split: str, text, count: int, length: int, offset_seed: int | None
) -> torch.Tensor:
    """All whole windows `[n, length]` of a split's token stream, from an offset drawn with the
    seed."""
    for name, value in (("number of windows", count), ("length", length)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    stream = _token_stream(tokenizer, split, text)
    available = len(stream) // length
    if available < count + (offset_seed is not None):
        raise UserError(
            f"the {split} text {str(text or 'embedded')!r} has {len(stream)} tokens, too few "
            f"for {count} windows "
            f"of {length}; ask for at most {max(available - (offset_seed is not None), 0)}"
        )
    offset = 0
    if offset_seed is not None:
        offset = int(
            torch.randint(length, (1,), generator=torch.Generator().manual_seed(offset_seed))
        )
    whole = (len(stream) - offset) // length
    return stream[offset : offset + whole * length].long().view(whole, length)


def _token_stream(tokenizer, split: str, text: str | Path | None) -> torch.Tensor:
    """All tokens of a split's text, int32 `[n]`; kept in the user's cache where the tokenizer can
    be told by its content."""

    def tokenize() -> torch.Tensor:
        words = tokenizer(text_of(split, text), add_special_tokens=False, verbose=False)
        return torch.tensor(words["input_ids"], dtype=torch.int32)

    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        return tokenize()
    of_text = _embedded_identity() if text is None else [text_of(split, text)]
    return cached(
        "tokens",
        [core.to_str(), *_versions(), split, *of_text],
        lambda folder: save_file({"stream": tokenize()}, folder / _STREAM),
        lambda folder: load_file(folder / _STREAM)["stream"],
    )


def _versions() -> list[str]:
    return [importlib.metadata.version(name) for name in ("tokenizers", "transformers")]


def calibration_tokens(
    tokenizer, samples: int = 64, length: int = 512, seed: int = 0, text: str | Path | None = None
) -> torch.Tensor:
    """Random windows of the calibration text that do not overlap.

    Args:
        tokenizer: a Hugging Face tokenizer; no special tokens are added.
        samples: number of windows.
        length: tokens a window.
        seed: draws the offset of the window grid and which windows are taken.
        text: see `text_of`.

    Returns:
        int64 `[samples, length]`.

    Raises:
        UserError: too little text, or text that cannot be read.
    """
    return _random_windows(tokenizer, "calibration", text, samples, length, seed)


def training_tokens(
    tokenizer, samples: int = 64, length: int = 512, seed: int = 0, text: str | Path | None = None
) -> torch.Tensor:
    """Random windows of the training text that do not overlap, in the order of training: what
    `calibration_tokens` is for pruning, for the recovery after it.

    Args:
        tokenizer, samples, length, seed, text: as for `calibration_tokens`.

    Returns:
        int64 `[samples, length]`.

    Raises:
        UserError: too little text, or text that cannot be read.
    """
    return _random_windows(tokenizer, "training", text, samples, length, seed)


def _random_windows(
    tokenizer, split: str, text, samples: int, length: int, seed: int
) -> torch.Tensor:
    windows = _windows(tokenizer, split, text, samples, length, seed)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    return windows[order[:samples]]


def evaluation_tokens(
    tokenizer, windows: int | None = 64, length: int = 512, text: str | Path | None = None
) -> torch.Tensor:
    """Windows of the evaluation text that do not overlap, evenly spaced over all of it; no seed.

    Args:
        windows: how many; None takes every window.
        tokenizer, length, text: as for `calibration_tokens`.

    Returns:
        int64 `[windows, length]`.

    Raises:
        UserError: too little text, or text that cannot be read.
    """
    every = _windows(tokenizer, "evaluation", text, 1 if windows is None else windows, length, None)
    if windows is None:
        return every
    return every[torch.arange(windows) * len(every) // windows]


def article_task(
    tokenizer, articles: int = 12, length: int = 64
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A classification task: which of the longest embedded articles a passage comes from. Passages
    do not overlap; of every five that follow each other three are for training, one for calibration
    and one for evaluation.

    Args:
        tokenizer: its special tokens go around every passage.
        articles: classes.
        length: tokens a passage, with them.

    Returns:
        Split -> (int64 `[n, length]`, labels `[n]`), article by article.

    Raises:
        UserError: more articles than there are, a length without room for text, or articles too
            short for it.
    """
    word, around = (
        tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True)
    )
    start = around.index(word[0])
    before = around[:start]
    after = around[start + len(word) :]
    room = length - len(before) - len(after)
    longest = sorted(embedded_articles(), key=lambda article: -len(article[1]))
    if not 2 <= articles <= len(longest) or room < 1:
        raise UserError(
            f"{articles} articles in passages of {length} tokens make no task; use 2 to "
            f"{len(longest)} articles and "
            f"more than {length - room} tokens"
        )
    found = {split: ([], []) for split in SPLITS}
    for label, (_, text) in enumerate(longest[:articles]):
        words = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for number in range(len(words) // room):
            passage = [*before, *words[number * room : (number + 1) * room], *after]
            split = {3: "calibration", 4: "evaluation"}.get(number % 5, "training")
            found[split][0].append(passage)
            found[split][1].append(label)
        if len(words) < 5 * room:
            raise UserError(
                f"article {label + 1} by length has {len(words)} tokens, too few for five "
                f"passages of {length}; use "
                f"{f'fewer than {label + 1} articles or ' * (label > 1)}shorter passages"
            )
    return {
        split: (torch.tensor(passages), torch.tensor(labels))
        for split, (passages, labels) in found.items()
    }


def check_tokens(model: torch.nn.Module, tokens: torch.Tensor, name: str = "calibration") -> None:
    """Raise a `UserError` unless `tokens` is int64 `[n, length]` with ids inside the vocabulary."""
    if (
        not isinstance(tokens, torch.Tensor)
        or tokens.dtype != torch.int64
        or tokens.ndim != 2
        or not tokens.numel()
    ):
        given = (
            f"{tokens.dtype} {list(tokens.shape)}"
            if isinstance(tokens, torch.Tensor)
            else type(tokens).__name__
        )
        raise UserError(f"{name} must be an int64 tensor [n, length], not empty, not {given}")
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit and tokens.shape[1] > limit:
        raise UserError(
            f"{name} has windows of {tokens.shape[1]} tokens; the model's positions end at {limit}"
        )
    vocabulary = model.get_input_embeddings().num_embeddings
    low = tokens.min().item()
    high = tokens.max().item()
    if low < 0 or high >= vocabulary:
        wrong = low if low < 0 else high
        raise UserError(
            f"{name} holds token id {wrong}, outside the vocabulary 0..{vocabulary - 1}"
        )
