"""Domains of text for Sheared LLaMA: the embedded articles, parted by the words that they use.

They stand in for the domains of the paper's data, which is RedPajama.
"""

import re
from collections import Counter

import torch
from transformers import PreTrainedTokenizerBase

from ...data.corpora import embedded_articles, split_of
from ...errors import UserError

# domain -> its words; an article is of the domain whose words are the largest share of its own
WORDS = {
    "people": ("he", "his", "born", "died", "father", "wife"),
    "places": ("city", "population", "river", "state", "island", "capital", "region", "country"),
    "science": (
        "theory",
        "energy",
        "species",
        "cells",
        "chemical",
        "surface",
        "water",
        "atoms",
        "acid",
        "light",
        "function",
        "number",
    ),
}
_HELD_OUT = 5  # the last of each such number of windows of a domain is held out


def domain_of(text: str) -> str:
    """The domain of a text by its words; the first of equal ones."""
    counts = Counter(re.findall("[a-z]+", text.lower()))
    return max(WORDS, key=lambda domain: sum(counts[word] for word in WORDS[domain]))


def domain_tokens(
    tokenizer: PreTrainedTokenizerBase, samples: int, held_out: int, length: int, seed: int = 0
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Windows of the embedded training articles by domain, for training and held out.

    They do not overlap, and none is of the calibration or evaluation text.

    Args:
        tokenizer: a Hugging Face tokenizer; no special tokens are added.
        samples: windows of each domain to train on.
        held_out: windows of each domain that are held out.
        length: tokens of a window.
        seed: seed of the order of the windows.

    Returns:
        Domain -> int64 `[samples, length]`, and domain -> int64 `[held_out, length]`.

    Raises:
        UserError: a domain has too little text.
    """
    articles = [text for title, text in embedded_articles() if split_of(title) == "training"]
    generator = torch.Generator().manual_seed(seed)
    training_windows = {}
    held_out_windows = {}
    for domain in WORDS:
        text = "\n\n".join(article for article in articles if domain_of(article) == domain)
        # All articles of a domain as one row of tokens, cut into whole windows.
        stream = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        count = len(stream) // length
        windows = torch.tensor(stream[: count * length]).view(count, length)
        # Every fifth window is held out, so that both parts are of all articles.
        is_held_out = torch.arange(count) % _HELD_OUT == _HELD_OUT - 1
        training_windows[domain] = _drawn(windows[~is_held_out], samples, domain, generator)
        held_out_windows[domain] = _drawn(windows[is_held_out], held_out, domain, generator)
    return training_windows, held_out_windows


def _drawn(
    windows: torch.Tensor, count: int, domain: str, generator: torch.Generator
) -> torch.Tensor:
    """So many of a domain's windows in random order.

    Raises:
        UserError: there are not so many.
    """
    if not 1 <= count <= len(windows):
        raise UserError(
            f"{domain} has no {count} windows of {windows.shape[1]} tokens; use 1 to "
            f"{len(windows)} of them"
        )
    return windows[torch.randperm(len(windows), generator=generator)[:count]]
