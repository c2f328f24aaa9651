"""Windows of tokens from a text: for calibration, training, pre-training and evaluation.

The four functions have one signature: a tokenizer, how many windows, their length in tokens, a seed
where windows are drawn at random, and the text. Each returns int64 tokens `[windows, length]`.
"""

import importlib.metadata
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

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
    bos: bool | str = "auto",
) -> torch.Tensor:
    """Random windows of the calibration text that do not overlap.

    Args:
        tokenizer: a Hugging Face tokenizer.
        samples: number of windows.
        length: tokens of a window.
        seed: seed of the offset of the window grid and of the windows that are taken.
        text: see `corpora.text_of`.
        bos: whether each window begins with the token that begins a text, which counts in its
            length; "auto" where the tokenizer puts it there by itself.

    Returns:
        int64 `[samples, length]`.

    Raises:
        UserError: too little text, text that cannot be read, or `bos` without such a token.
    """
    return _random_windows(tokenizer, "calibration", samples, length, seed, text, bos)


def training_tokens(
    tokenizer: PreTrainedTokenizerBase,
    samples: int = 64,
    length: int = 512,
    seed: int = 0,
    text: str | Path | None = None,
    bos: bool | str = "auto",
) -> torch.Tensor:
    """Random windows of the training text that do not overlap, in the order of training.

    They are for recovery what `calibration_tokens` are for pruning.

    Args:
        tokenizer: a Hugging Face tokenizer.
        samples: number of windows.
        length: tokens of a window.
        seed: seed of the offset of the window grid and of the windows that are taken.
        text: see `corpora.text_of`.
        bos: whether each window begins with the token that begins a text, which counts in its
            length; "auto" where the tokenizer puts it there by itself.

    Returns:
        int64 `[samples, length]`.

    Raises:
        UserError: too little text, text that cannot be read, or `bos` without such a token.
    """
    return _random_windows(tokenizer, "training", samples, length, seed, text, bos)


def pretraining_tokens(
    tokenizer: PreTrainedTokenizerBase,
    windows: int,
    length: int = 128,
    seed: int = 0,
    text: str | Path | None = None,
    bos: bool | str = "auto",
) -> torch.Tensor:
    """Windows of the training text in random order, as many passes over it as it takes; each pass
    cuts it elsewhere.

    Args:
        tokenizer: a Hugging Face tokenizer.
        windows: number of windows.
        length: tokens of a window.
        seed: seed of the offset and the order of every pass.
        text: see `corpora.text_of`.
        bos: whether each window begins with the token that begins a text, which counts in its
            length; "auto" where the tokenizer puts it there by itself.

    Returns:
        int64 `[windows, length]`.

    Raises:
        UserError: a number below 1, less text than two windows, or text that cannot be read.
    """
    _check_numbers(windows=windows, length=length)
    stream = _token_stream(tokenizer, "training", text)
    first = _first_token(tokenizer, bos)
    if len(stream) < 2 * length:
        raise UserError(
            f"the training text has {len(stream)} tokens, too few for windows of {length}; use less"
        )
    generator = torch.Generator().manual_seed(seed)
    passes = []
    drawn = 0
    while drawn < windows:
        grid = _grid(stream, length, _random_offset(length, generator), first)
        passes.append(grid[torch.randperm(len(grid), generator=generator)])
        drawn += len(grid)
    return torch.cat(passes)[:windows]


def evaluation_tokens(
    tokenizer: PreTrainedTokenizerBase,
    windows: int | None = 64,
    length: int = 512,
    text: str | Path | None = None,
    bos: bool | str = "auto",
) -> torch.Tensor:
    """Windows of the evaluation text that do not overlap, evenly spaced over all of it.

    They are the same each time: there is no seed.

    Args:
        tokenizer: a Hugging Face tokenizer.
        windows: number of windows; None takes every window.
        length: tokens of a window.
        text: see `corpora.text_of`.
        bos: whether each window begins with the token that begins a text, which counts in its
            length; "auto" where the tokenizer puts it there by itself.

    Returns:
        int64 `[windows, length]`.

    Raises:
        UserError: too little text, or text that cannot be read.
    """
    if windows is None:
        _check_numbers(length=length)
        return _whole_windows(tokenizer, "evaluation", 1, length, None, text, bos)
    _check_numbers(windows=windows, length=length)
    grid = _whole_windows(tokenizer, "evaluation", windows, length, None, text, bos)
    return grid[torch.arange(windows) * len(grid) // windows]


def _random_windows(
    tokenizer: PreTrainedTokenizerBase,
    split: str,
    samples: int,
    length: int,
    seed: int,
    text: str | Path | None,
    bos: bool | str,
) -> torch.Tensor:
    """Some windows of a grid whose offset is drawn, in a random order."""
    _check_numbers(samples=samples, length=length)
    grid = _whole_windows(tokenizer, split, samples, length, seed, text, bos)
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(seed))
    return grid[order[:samples]]


def _whole_windows(
    tokenizer: PreTrainedTokenizerBase,
    split: str,
    count: int,
    length: int,
    seed: int | None,
    text: str | Path | None,
    bos: bool | str,
) -> torch.Tensor:
    """All whole windows `[n, length]` of a split, if they are at least `count`.

    Args:
        tokenizer: tokenizer of the text.
        split: see `corpora.text_of`.
        count: windows that are needed.
        length: tokens of a window.
        seed: seed of the offset of the grid; None starts at the first token.
        text: see `corpora.text_of`.
        bos: as for `evaluation_tokens`.
    """
    stream = _token_stream(tokenizer, split, text)
    first = _first_token(tokenizer, bos)
    # An offset may cost the last window.
    available = len(stream) // _text_length(length, first) - (seed is not None)
    if available < count:
        raise UserError(
            f"the {split} text {str(text or 'embedded')!r} has {len(stream)} tokens, too few for "
            f"{count} windows of {length}; ask for at most {max(available, 0)}"
        )
    offset = 0
    if seed is not None:
        offset = _random_offset(length, torch.Generator().manual_seed(seed))
    return _grid(stream, length, offset, first)


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        check_whole(name, value, 1)


def _random_offset(length: int, generator: torch.Generator) -> int:
    """The first token of a grid of windows."""
    return int(torch.randint(length, (1,), generator=generator))


def _grid(stream: torch.Tensor, length: int, offset: int, first: int | None) -> torch.Tensor:
    """The whole windows of a stream, int64 `[n, length]`.

    Args:
        stream: the tokens of a text, `[tokens]`.
        length: tokens of a window.
        offset: the token that the first window takes first.
        first: token put before the text of each window; None for none.
    """
    of_text = _text_length(length, first)
    whole = (len(stream) - offset) // of_text
    windows = stream[offset : offset + whole * of_text].long().view(whole, of_text)
    if first is None:
        return windows
    return torch.cat([windows.new_full((whole, 1), first), windows], dim=1)


def _text_length(length: int, first: int | None) -> int:
    """Tokens of the text in a window.

    Raises:
        UserError: a window has no room for any.
    """
    if first is None:
        return length
    if length < 2:
        raise UserError(f"length {length} leaves no room for text after BOS; use 2 or more")
    return length - 1


def _first_token(tokenizer: PreTrainedTokenizerBase, bos: bool | str) -> int | None:
    """The token that every window begins with; None for none; see `evaluation_tokens`."""
    if bos is False:
        return None
    token = getattr(tokenizer, "bos_token_id", None)
    if bos is True:
        if token is None:
            raise UserError("bos=True, and the tokenizer has no such token; use bos='auto'")
        return token
    if bos != "auto":
        raise UserError(f"bos {bos!r} is not allowed; use 'auto', True or False")
    # Gemma's tokenizer begins every text with BOS, and the model is lost without it.
    if token is not None and tokenizer("a")["input_ids"][:1] == [token]:
        return token
    return None


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
