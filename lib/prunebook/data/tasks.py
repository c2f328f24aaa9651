"""A classification task made from the embedded articles."""

import torch

from ..errors import UserError
from .corpora import SPLITS, embedded_articles


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
            f"{len(longest)} articles and more than {length - room} tokens"
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
                f"article {label + 1} by length has {len(words)} tokens, too few for five passages "
                f"of {length}; use {f'fewer than {label + 1} articles or ' * (label > 1)}shorter "
                "passages"
            )
    return {
        split: (torch.tensor(passages), torch.tensor(labels))
        for split, (passages, labels) in found.items()
    }
