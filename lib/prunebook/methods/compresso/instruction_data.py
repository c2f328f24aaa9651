"""Instructions with responses for Compresso, made from passages of the embedded articles.

They stand in for the instruction data of Compresso (arXiv 2310.05015), which is GPT4-Alpaca.
`PREFIX` stands in for its collaborative prompt, with the same idea in fewer and other words.

Windows are int64 `[n, length, 2]`: token ids, and labels, which are the ids of the response and
-100 before it. Every response ends with its window, so that nothing is padded.
"""

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...data.corpora import SPLITS, embedded_articles, split_of
from ...data.token_check import check_tokens
from ...errors import UserError

IGNORED = -100  # label of a token that is not predicted
PREFIX = (
    "Note: parts of you are being switched off. Let the others take over, and answer as well as "
    "before.\n\n"
)
_QUOTED = 4  # an instruction quotes the first of this many parts of a passage
# What stands before and after the quoted part; a task with nothing after it quotes nothing.
_TASKS = (
    ("Task: write a passage of an article on {title}.", ""),
    ("Task: go on with this passage of an article on {title}.\nPassage:", "\n"),
    ("Task: go on with this passage.\nPassage:", "\n"),
)
_ANSWER = "\nAnswer:"

_Encode = Callable[[str], list[int]]  # text -> its token ids


def instruction_windows(
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    length: int,
    *,
    split: str = "training",
    seed: int = 0,
) -> torch.Tensor:
    """Random passages of a split's articles as answers to instructions; three kinds take turns.

    Args:
        tokenizer: a Hugging Face tokenizer; no special tokens are added.
        count: number of windows.
        length: tokens of an instruction and its response together.
        split: one of `corpora.SPLITS`, which share no article.
        seed: seed of the choice of passages and of their order.

    Returns:
        int64 `[count, length, 2]`, token ids and labels.

    Raises:
        UserError: an unknown split, too few passages, or a length without room for an instruction
            and a response.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; use {', '.join(SPLITS)}")

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    passages = _passages(encode, split, length)
    if not 1 <= count <= len(passages):
        raise UserError(
            f"{count} passages of {length} tokens cannot be had of {split} articles; use 1 to "
            f"{len(passages)}"
        )
    # The seed decides which passages are taken, and in which order.
    order = torch.randperm(len(passages), generator=torch.Generator().manual_seed(seed))
    windows = []
    for index in order[:count].tolist():
        title, passage = passages[index]
        # The task goes by the place of the passage, so that it is the same under every seed.
        before, after = _TASKS[index % len(_TASKS)]
        windows.append(_window(encode, passage, before.format(title=title), after))
    return torch.tensor(windows).transpose(1, 2).contiguous()


def _passages(encode: _Encode, split: str, length: int) -> list[tuple[str, list[int]]]:
    """Title and token ids of all passages of a split that are this long and do not overlap."""
    passages = []
    for title, text in embedded_articles():
        if split_of(title) != split:
            continue
        ids = encode(text)
        for start in range(0, len(ids) - length + 1, length):
            passages.append((title, ids[start : start + length]))
    return passages


def _window(encode: _Encode, passage: list[int], before: str, after: str) -> list[list[int]]:
    """Token ids and labels of one instruction with its response, as long as the passage."""
    length = len(passage)
    # The instruction quotes the first part of the passage, unless its task is to write all of it.
    quoted = 0
    if after:
        quoted = length // _QUOTED
    prompt = [*encode(before), *passage[:quoted], *encode(after), *encode(_ANSWER)]
    # The response goes on from there, as far as the window has room.
    response = passage[quoted : quoted + length - len(prompt)]
    if not response:
        raise UserError(
            f"length {length} has no room for a response after {len(prompt)} tokens; use twice as "
            "many"
        )
    return [[*prompt, *response], [IGNORED] * len(prompt) + response]


def after_prefix(windows: torch.Tensor, prefix: Sequence[int]) -> torch.Tensor:
    """Each window after a prefix, whose tokens have no labels.

    Args:
        windows: int64 `[n, length, 2]`.
        prefix: token ids.

    Returns:
        int64 `[n, len(prefix) + length, 2]`.
    """
    # Pairs of a token and its label; no token of the prefix is predicted.
    pairs = torch.tensor([[token, IGNORED] for token in prefix], dtype=torch.int64)
    in_front = pairs.view(1, -1, 2).expand(len(windows), -1, -1)
    return torch.cat([in_front, windows], 1)


def prefix_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token ids of `PREFIX`."""
    return tokenizer(PREFIX, add_special_tokens=False)["input_ids"]


def random_prefix(tokenizer: PreTrainedTokenizerBase, length: int, seed: int = 0) -> list[int]:
    """A prefix that says nothing: token ids drawn from the vocabulary without special tokens.

    Args:
        tokenizer: a Hugging Face tokenizer.
        length: number of tokens.
        seed: seed of the draw.
    """
    allowed = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    drawn = torch.randint(len(allowed), (length,), generator=torch.Generator().manual_seed(seed))
    return [allowed[index] for index in drawn]


def check_instructions(model: PreTrainedModel, windows: torch.Tensor) -> None:
    """Check that windows hold token ids and labels, some labels in each window.

    Args:
        model: a causal language model.
        windows: int64 `[n, length, 2]`: ids inside the vocabulary, and labels, each of which is the
            id beside it or -100.

    Raises:
        UserError: they do not.
    """
    if windows.ndim != 3 or windows.shape[2] != 2:
        raise UserError(
            f"windows {list(windows.shape)} must be [n, length, 2], token ids and labels"
        )
    tokens, labels = windows.unbind(2)
    check_tokens(model, tokens, "windows")
    # The first token of a window is never predicted, so that a label there counts for nothing.
    labelled = labels != IGNORED
    if (labelled & (labels != tokens)).any() or not labelled[:, 1:].any(1).all():
        raise UserError(
            "labels must be token ids where a token is predicted, some in every window, else "
            f"{IGNORED}"
        )
