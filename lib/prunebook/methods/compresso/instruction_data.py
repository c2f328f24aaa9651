"""Instructions with responses, made from passages of the embedded articles, for training on the
responses alone; with a fixed text in front of them all, if wanted.

In place of the instruction data of Compresso (arXiv 2310.05015: GPT4-Alpaca) and of its
collaborative prompt, of which `PREFIX` has the idea in other, fewer words. Windows are int64 `[n,
length, 2]`: token ids, and labels, which are the ids of the response and -100 before it. Every
response ends with its window, so that nothing is padded.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tqdm import tqdm

from ...data.corpora import SPLITS, embedded_articles, split_of
from ...data.windows import check_tokens
from ...errors import UserError
from ...passes.precision import matmul_precision

IGNORED = -100  # label of what is not predicted
PREFIX = "Note: parts of you are being switched off. Let the others take over, and answer as well as before.\n\n"
_OPENING = 4  # the share of a passage that the instruction quotes: one in so many tokens
_TASKS = (  # what comes before and after the quoted opening; one without a quote
    ("Task: write a passage of an article on {title}.", ""),
    ("Task: go on with this passage of an article on {title}.\nPassage:", "\n"),
    ("Task: go on with this passage.\nPassage:", "\n"),
)
_ANSWER = "\nAnswer:"


def instruction_windows(
    tokenizer, count: int, length: int, *, split: str = "training", seed: int = 0
) -> torch.Tensor:
    """Random passages of a split's articles as answers to instructions; three kinds take turns.

    Args:
        tokenizer: no special tokens are added.
        length: tokens of instruction and response together.
        split: see `corpora.SPLITS`, which share no article.
        seed: draws passages and their order.

    Returns:
        int64 `[count, length, 2]`.

    Raises:
        UserError: an unknown split, too few passages, or a length without room for an instruction
            and a response.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; use {', '.join(SPLITS)}")

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    found = []
    answer = ids(_ANSWER)
    for title, text in (
        article for article in embedded_articles() if split_of(article[0]) == split
    ):
        words = ids(text)
        for start in range(0, len(words) - length + 1, length):
            found.append((title, words[start : start + length], _TASKS[len(found) % len(_TASKS)]))
    if not 1 <= count <= len(found):
        raise UserError(
            f"{count} passages of {length} tokens cannot be had of {split} articles; use 1 to "
            f"{len(found)}"
        )
    windows = []
    for index in torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[
        :count
    ].tolist():
        title, passage, (before, after) = found[index]
        quoted = length // _OPENING if after else 0
        prompt = [*ids(before.format(title=title)), *passage[:quoted], *ids(after), *answer]
        response = passage[quoted : quoted + length - len(prompt)]
        if not response:
            raise UserError(
                f"length {length} has no room for a response after {len(prompt)} tokens; use twice "
                "as many"
            )
        windows.append([[*prompt, *response], [IGNORED] * len(prompt) + response])
    return torch.tensor(windows).transpose(1, 2).contiguous()


def after_prefix(windows: torch.Tensor, prefix: Sequence[int]) -> torch.Tensor:
    """Each of the windows after the token ids `prefix`, without labels: int64 `[n, len(prefix) +
    length, 2]`."""
    in_front = torch.tensor([[token, IGNORED] for token in prefix], dtype=torch.int64).view(
        1, -1, 2
    )
    return torch.cat([in_front.expand(len(windows), -1, -1), windows], 1)


def prefix_tokens(tokenizer) -> list[int]:
    """The token ids of `PREFIX`."""
    return tokenizer(PREFIX, add_special_tokens=False)["input_ids"]


def random_prefix(tokenizer, length: int, seed: int = 0) -> list[int]:
    """`length` token ids drawn from the whole vocabulary but special tokens: a prefix that says
    nothing."""
    allowed = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    drawn = torch.randint(len(allowed), (length,), generator=torch.Generator().manual_seed(seed))
    return [allowed[index] for index in drawn]


def check_instructions(model, windows: torch.Tensor) -> None:
    """Raise a `UserError` unless `windows` is int64 `[n, length, 2]`: ids inside the vocabulary,
    and labels, each the id beside it or -100, not all of a window."""
    if windows.ndim != 3 or windows.shape[2] != 2:
        raise UserError(
            f"windows {list(windows.shape)} must be [n, length, 2], token ids and labels"
        )
    tokens, labels = windows.unbind(2)
    check_tokens(model, tokens, "windows")
    labelled = labels != IGNORED
    if (labelled & (labels != tokens)).any() or not labelled[:, 1:].any(1).all():
        raise UserError(
            "labels must be token ids where a token is predicted, some in every window, else "
            f"{IGNORED}"
        )


def response_loss(model, batch: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Negative log-likelihood of the labelled tokens of `batch [windows, length, 2]`, in nats, in
    float32: their mean, or by `reduction` as of `cross_entropy`, `none` giving `[windows, length -
        1]`, 0 where there is no label."""
    logits = model(input_ids=batch[..., 0], use_cache=False).logits[:, :-1].float()
    return F.cross_entropy(
        logits.transpose(1, 2), batch[:, 1:, 1].to(logits.device), reduction=reduction
    )


@torch.no_grad()
def response_nll(
    model, windows: torch.Tensor, precision: str = "exact", progress: str | None = None
) -> torch.Tensor:
    """Mean negative log-likelihood of the response of each window in nats a token, float64 `[n]`,
    on the CPU.

    Args:
        windows: as of `instruction_windows`.
        precision: `exact` (the model's dtype) or `fast` (bfloat16 products).
    """
    means = []
    for window in tqdm(windows.to(model.device), desc=progress, disable=progress is None):
        with matmul_precision(model.device, precision):
            means.append(response_loss(model, window[None]).double().cpu())
    return torch.stack(means)
