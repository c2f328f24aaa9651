"""Windows of tokens from a text: for calibration, training, pre-training and evaluation.

The four functions have one signature: a tokenizer, how many windows, their length in tokens, a seed
where windows are drawn at random, and the text. Each returns int64 tokens `[windows, length]`.
"""

import importlib.metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..files import cached
from ..validation import check_whole
from .corpora import embedded_identity, text_of

# File of a token stream in the cache.
_STREAM = "tokens.safetensors"


def calibration_tokens(
    tokenizer: PreTrainedTokenizerBase,
    samples: int = 64,
    length: int = 512,
    seed: int = 0,
    text: str | Path | None = None,
) -> torch.Tensor:
    """Random windows of the calibration text that do not overlap.

    Args:
        tokenizer: a Hugging Face tokenizer; no special tokens are added.
        samples: number of windows.
        length: tokens of a window.
        seed: seed of the offset of the window grid and of the windows that are taken.
        text: see `corpora.text_of`.

    Returns:
        int64 `[samples, length]`.

    Raises:
        UserError: too little text, or text that cannot be read.
    """
    return _random_windows(tokenizer, "calibration", samples, length, seed, text)


def training_tokens(
    tokenizer: PreTrainedTokenizerBase,
    samples: int = 64,
    length: int = 512,
    seed: int = 0,
    text: str | Path | None = None,
) -> torch.Tensor:
    """Random windows of the training text that do not overlap, in the order of training.

    They are for recovery what `calibration_tokens` are for pruning.

    Args:
        tokenizer: a Hugging Face tokenizer; no special tokens are added.
        samples: number of windows.
        length: tokens of a window.
        seed: seed of the offset of the window grid and of the windows that are taken.
        text: see `corpora.text_of`.

    Returns:
        int64 `[samples, length]`.

    Raises:
        UserError: too little text, or text that cannot be read.
    """
    return _random_windows(tokenizer, "training", samples, length, seed, text)


def pretraining_tokens(
    tokenizer: PreTrainedTokenizerBase,
    windows: int,
    length: int = 128,
    seed: int = 0,
    text: str | Path | None = None,
) -> torch.Tensor:
    """Windows of the training text in random order, as many passes over it as it takes; each pass
    cuts it elsewhere.

    Args:
        tokenizer: a Hugging Face tokenizer; no special tokens are added.
        windows: number of windows.
        length: tokens of a window.
        seed: seed of the offset and the order of every pass.
        text: see `corpora.text_of`.

    Returns:
        int64 `[windows, length]`.

    Raises:
        UserError: a number below 1, less text than two windows, or text that cannot be read.
    """
    _check_numbers(windows=windows, length=length)
    stream = _token_stream(tokenizer, "training", text)
    if len(stream) < 2 * length:
        raise UserError(
            f"the training text has {len(stream)} tokens, too few for windows of {length}; use less"
        )
    generator = torch.Generator().manual_seed(seed)
    passes = []
    drawn = 0
    while drawn < windows:
        grid = _grid(stream, length, _random_offset(length, generator))
        passes.append(grid[torch.randperm(len(grid), generator=generator)])
        drawn += len(grid)
    return torch.cat(passes)[:windows]


def evaluation_tokens(
    tokenizer: PreTrainedTokenizerBase,
    windows: int | None = 64,
    length: int = 512,
    text: str | Path | None = None,
) -> torch.Tensor:
    """Windows of the evaluation text that do not overlap, evenly spaced over all of it.

    They are the same each time: there is no seed.

    Args:
        tokenizer: a Hugging Face tokenizer; no special tokens are added.
        windows: number of windows; None takes every window.
        length: tokens of a window.
        text: see `corpora.text_of`.

    Returns:
        int64 `[windows, length]`.

    Raises:
        UserError: too little text, or text that cannot be read.
    """
    if windows is None:
        _check_numbers(length=length)
        return _whole_windows(tokenizer, "evaluation", 1, length, None, text)
    _check_numbers(windows=windows, length=length)
    grid = _whole_windows(tokenizer, "evaluation", windows, length, None, text)
    return grid[torch.arange(windows) * len(grid) // windows]


def _random_windows(
    tokenizer: PreTrainedTokenizerBase,
    split: str,
    samples: int,
    length: int,
    seed: int,
    text: str | Path | None,
) -> torch.Tensor:
    """Some windows of a grid whose offset is drawn, in a random order."""
    _check_numbers(samples=samples, length=length)
    grid = _whole_windows(tokenizer, split, samples, length, seed, text)
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(seed))
    return grid[order[:samples]]


def _whole_windows(
    tokenizer: PreTrainedTokenizerBase,
    split: str,
    count: int,
    length: int,
    seed: int | None,
    text: str | Path | None,
) -> torch.Tensor:
    """All whole windows `[n, length]` of a split, if they are at least `count`.

    Args:
        tokenizer: tokenizer of the text.
        split: see `corpora.text_of`.
        count: windows that are needed.
        length: tokens of a window.
        seed: seed of the offset of the grid; None starts at the first token.
        text: see `corpora.text_of`.
    """
    stream = _token_stream(tokenizer, split, text)
    # An offset may cost the last window.
    available = len(stream) // length - (seed is not None)
    if available < count:
        raise UserError(
            f"the {split} text {str(text or 'embedded')!r} has {len(stream)} tokens, too few for "
            f"{count} windows of {length}; ask for at most {max(available, 0)}"
        )
    offset = 0
    if seed is not None:
        offset = _random_offset(length, torch.Generator().manual_seed(seed))
    return _grid(stream, length, offset)


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        check_whole(name, value, 1)


def _random_offset(length: int, generator: torch.Generator) -> int:
    """The first token of a grid of windows."""
    return int(torch.randint(length, (1,), generator=generator))


def _grid(stream: torch.Tensor, length: int, offset: int) -> torch.Tensor:
    """The whole windows of a stream from an offset on, int64 `[n, length]`."""
    whole = (len(stream) - offset) // length
    return stream[offset : offset + whole * length].long().view(whole, length)


def _token_stream(
    tokenizer: PreTrainedTokenizerBase, split: str, text: str | Path | None
) -> torch.Tensor:
    """All tokens of a split's text, int32 `[n]`; kept in the user's cache where the tokenizer can
    be told by its content."""

    def tokenize() -> torch.Tensor:
        words = tokenizer(text_of(split, text), add_special_tokens=False, verbose=False)
        return torch.tensor(words["input_ids"], dtype=torch.int32)

    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        return tokenize()
    of_text = [text_of(split, text)] if text is not None else embedded_identity()
    return cached(
        "tokens",
        [core.to_str(), *_tokenizer_versions(), split, *of_text],
        lambda folder: save_file({"stream": tokenize()}, folder / _STREAM),
        lambda folder: load_file(folder / _STREAM)["stream"],
    )


def _tokenizer_versions() -> list[str]:
    return [importlib.metadata.version(name) for name in ("tokenizers", "transformers")]


def check_tokens(model: PreTrainedModel, tokens: Any, name: str = "calibration") -> None:
    """Raise a `UserError` unless a model can read the tokens.

    Args:
        model: the model, which says how many words and positions there are.
        tokens: int64 `[n, length]`, not empty, with ids inside the vocabulary.
        name: what the message calls them.
    """
    if not isinstance(tokens, torch.Tensor):
        _raise_not_tokens(name, type(tokens).__name__)
    if tokens.dtype != torch.int64 or tokens.ndim != 2 or not tokens.numel():
        _raise_not_tokens(name, f"{tokens.dtype} {list(tokens.shape)}")
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit and tokens.shape[1] > limit:
        raise UserError(
            f"{name} has windows of {tokens.shape[1]} tokens; the model's positions end at {limit}"
        )
    vocabulary = model.get_input_embeddings().num_embeddings
    for token_id in (tokens.min().item(), tokens.max().item()):
        if not 0 <= token_id < vocabulary:
            raise UserError(
                f"{name} holds token id {token_id}, outside the vocabulary 0..{vocabulary - 1}"
            )


def _raise_not_tokens(name: str, received: str) -> None:
    raise UserError(f"{name} must be an int64 tensor [n, length], not empty, not {received}")
