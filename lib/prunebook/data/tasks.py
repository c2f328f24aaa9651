"""A classification task made from the embedded articles."""

import torch
from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from .corpora import SPLITS, embedded_articles

# Of every five passages that follow each other, the split of the one at each place.
_SPLIT_OF_PLACE = ("training", "training", "training", "calibration", "evaluation")


def article_task(
    tokenizer: PreTrainedTokenizerBase, articles: int = 12, length: int = 64
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A classification task: which of the longest embedded articles a passage comes from.

    Passages do not overlap; of every five that follow each other three are for training, one for
    calibration and one for evaluation.

    Args:
        tokenizer: tokenizer whose special tokens go around every passage.
        articles: number of articles, which are the classes.
        length: tokens of a passage, special ones included.

    Returns:
        Split -> (int64 `[n, length]`, labels `[n]`), article by article.

    Raises:
        UserError: more articles than there are, a length without room for text, or articles too
            short for it.
    """
    before, after = _special_tokens(tokenizer)
    room = length - len(before) - len(after)
    longest = sorted(embedded_articles(), key=lambda article: -len(article[1]))
    if not 2 <= articles <= len(longest) or room < 1:
        raise UserError(
            f"{articles} articles in passages of {length} tokens make no task; use 2 to "
            f"{len(longest)} articles and more than {length - room} tokens"
        )
    passages = {split: [] for split in SPLITS}
    labels = {split: [] for split in SPLITS}
    for label, (_, text) in enumerate(longest[:articles]):
        words = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for number in range(len(words) // room):
            split = _SPLIT_OF_PLACE[number % 5]
            content = words[number * room : (number + 1) * room]
            passages[split].append([*before, *content, *after])
            labels[split].append(label)
        if len(words) < 5 * room:
            remedy = "shorter passages"
            # Two articles are the fewest.
            if label > 1:
                remedy = f"fewer than {label + 1} articles or shorter passages"
            raise UserError(
                f"article {label + 1} by length has {len(words)} tokens, too few for five passages "
                f"of {length}; use {remedy}"
            )
    return {split: (torch.tensor(passages[split]), torch.tensor(labels[split])) for split in SPLITS}


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The tokens that go before and after a text, found out around the word `a`."""
    word = tokenizer("a", add_special_tokens=False)["input_ids"]
    around = tokenizer("a", add_special_tokens=True)["input_ids"]
    start = around.index(word[0])
    return around[:start], around[start + len(word) :]
