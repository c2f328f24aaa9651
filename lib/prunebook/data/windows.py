"""Windows of tokens from a text: for calibration, training, pre-training and evaluation."""

import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..errors import UserError
from ..files import cached
from .corpora import embedded_identity, text_of

_STREAM = "tokens.safetensors"


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
            f"the {split} text {str(text or 'embedded')!r} has {len(stream)} tokens, too few for "
            f"{count} windows of {length}; ask for at most "
            f"{max(available - (offset_seed is not None), 0)}"
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
    of_text = embedded_identity() if text is None else [text_of(split, text)]
    return cached(
        "tokens",
        [core.to_str(), *_tokenizer_versions(), split, *of_text],
        lambda folder: save_file({"stream": tokenize()}, folder / _STREAM),
        lambda folder: load_file(folder / _STREAM)["stream"],
    )


def _tokenizer_versions() -> list[str]:
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


def pretraining_tokens(
    tokenizer, windows: int, length: int = 128, seed: int = 0, text: str | Path | None = None
) -> torch.Tensor:
    """Windows of the training text in random order, as many passes over it as it takes; each pass
    cuts it elsewhere.

    Args:
        tokenizer: a Hugging Face tokenizer; no special tokens are added.
        windows: how many.
        length: tokens a window.
        seed: draws the offset and the order of every pass.
        text: see `corpora.text_of`.

    Returns:
        int64 `[windows, length]`.

    Raises:
        UserError: a number below 1, less text than two windows, or text that cannot be read.
    """
    for name, value in (("windows", windows), ("length", length)):
        if type(value) is not int or value < 1:
            raise UserError(f"{name} {value!r} is not allowed; use a whole number of 1 or more")
    stream = torch.tensor(
        tokenizer(text_of("training", text), add_special_tokens=False, verbose=False)["input_ids"]
    )
    if len(stream) < 2 * length:
        raise UserError(
            f"the training text has {len(stream)} tokens, too few for windows of {length}; use less"
        )
    drawn = torch.Generator().manual_seed(seed)
    passes = []
    found = 0
    while found < windows:
        offset = int(torch.randint(length, (1,), generator=drawn))
        whole = stream[offset : offset + (len(stream) - offset) // length * length].view(-1, length)
        passes.append(whole[torch.randperm(len(whole), generator=drawn)])
        found += len(whole)
    return torch.cat(passes)[:windows]
