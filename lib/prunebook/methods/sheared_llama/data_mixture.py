"""Domains of text whose shares in training adapt: those whose loss is furthest above a reference
get more.

Dynamic batch loading of Sheared LLaMA (ICLR 2024, arXiv 2310.06694, section 2.2;
princeton-nlp/LLM-Shearing at b87218b, `callbacks/dynamic_loading_callback.py`).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ...data.corpora import embedded_articles, split_of
from ...data.windows import check_tokens
from ...errors import UserError
from ...measure.baseline import add_tensors
from ...measure.quality import measure_quality
from ...passes.backward import next_token_loss
from ...recovery.training import Training, train, training_all

# An article is of the domain whose words are the largest share of its words.
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
_HELD_OUT = 5  # of every so many windows of a domain the last is held out


def domain_of(text: str) -> str:
    """The domain of a text by its words; the first of equal ones."""
    counts = Counter(re.findall("[a-z]+", text.lower()))
    return max(WORDS, key=lambda domain: sum(counts[word] for word in WORDS[domain]))


def domain_tokens(
    tokenizer, samples: int, held_out: int, length: int, seed: int = 0
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Windows of the embedded training articles by domain, for training and held out; they do not
    overlap, and none is of the calibration or evaluation text.

    Args:
        samples, held_out: windows of each domain.
        length: tokens a window.
        seed: of their order.

    Returns:
        Domain -> int64 `[samples, length]`, and -> int64 `[held_out, length]`.

    Raises:
        UserError: a domain has too little text.
    """
    articles = [text for title, text in embedded_articles() if split_of(title) == "training"]
    drawn = torch.Generator().manual_seed(seed)
    found = ({}, {})
    for domain in WORDS:
        text = "\n\n".join(article for article in articles if domain_of(article) == domain)
        stream = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        whole = len(stream) // length
        windows = torch.tensor(stream[: whole * length]).view(whole, length)
        last = torch.arange(whole) % _HELD_OUT == _HELD_OUT - 1
        for into, some, wanted in zip(
            found, (windows[~last], windows[last]), (samples, held_out), strict=True
        ):
            if not 1 <= wanted <= len(some):
                raise UserError(
                    f"{domain} has no {wanted} windows of {length} tokens; use 1 to {len(some)} of "
                    "them"
                )
            into[domain] = some[torch.randperm(len(some), generator=drawn)[:wanted]]
    return found


def new_shares(
    shares: torch.Tensor,
    losses: torch.Tensor,
    references: torch.Tensor,
    *,
    clamp: bool = True,
    smoothing: float = 1e-4,
) -> torch.Tensor:
    """Shares in proportion to `w exp(max(loss - reference, 0))`, then `(1 - c) w + c / k`.

    Args:
        shares: w `[k]`, above 0, of sum 1.
        losses, references: `[k]`, in nats a token.
        clamp: the `max`, as in the paper; without it, as in the code, domains below their reference
            shrink.
        smoothing: c, the code's; 0 for the paper's algorithm.

    Returns:
        float32 `[k]`, of sum 1.
    """
    excess = losses - references
    weights = torch.softmax(shares.log() + (excess.clamp(min=0) if clamp else excess), 0)
    return (1 - smoothing) * weights + smoothing / len(weights)


@dataclass(frozen=True)
class MixtureCourse:
    """`loss [steps]` of training; of every update, the start included, held-out `losses` and the
    `shares` that follow from them, both `[updates, domains]`; and which domain each step's windows
    were of, `drawn [steps, batch]`."""

    loss: torch.Tensor
    losses: torch.Tensor
    shares: torch.Tensor
    drawn: torch.Tensor


def domain_losses(model, windows: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Mean next-token loss of each domain, float32 `[k]`, in nats.

    Raises:
        UserError: bad tokens.
    """
    return torch.stack([measure_quality(model, tokens).nll.mean() for tokens in windows.values()])


def train_mixture(
    model,
    windows: Mapping[str, torch.Tensor],
    held_out: Mapping[str, torch.Tensor],
    training: Training,
    *,
    references: torch.Tensor | None = None,
    every: int = 50,
    progress: str | None = None,
) -> MixtureCourse:
    """Train all parameters on several domains, in place, from equal shares.

    The domain that is furthest behind its share is next, rather than one drawn at random: with few
    steps, chance would hide what the shares do.

    Args:
        windows: domain -> int64 `[n, length]`, n windows for as many steps times `training.batch`.
        held_out: domain -> int64 `[m, length]`, measured at the start and after every `every`
            steps.
        references: losses that domains are compared with, `[k]`; None leaves shares as they are.
        progress: label of a progress bar, None for none.

    Raises:
        UserError: domains that differ, windows of different shapes, and what `finetune.train`
            raises.
    """
    shapes = {tuple(tokens.shape) for tokens in windows.values()}
    if len(shapes) != 1 or list(windows) != list(held_out):
        raise UserError(
            f"domains {list(windows)}, {list(held_out)} must be the same and have windows of one "
            "shape"
        )
    for tokens in (*windows.values(), *held_out.values()):
        check_tokens(model, tokens, "windows")
    # [n, domains, length]: a window of each, of which one is used
    candidates = torch.stack([*windows.values()], 1)
    mixture = _Mixture(
        model, held_out, references, every, len(candidates) // training.batch, training.batch
    )
    digest = hashlib.sha256(
        repr((every, None if references is None else references.tolist())).encode()
    )
    add_tensors(digest, held_out.values())
    settings = digest.hexdigest()
    with training_all(model, training):
        loss = train(
            mixture,
            candidates,
            training,
            lambda step, batch: step(batch),
            progress,
            settings=settings,
        )
    mixture.update()
    return MixtureCourse(
        torch.tensor(loss), mixture.losses.cpu(), mixture.shares.cpu(), mixture.drawn.cpu()
    )


class _Mixture(nn.Module):
    """The model with the state of its mixture in buffers, so that a checkpoint has it; called on
    candidates, the loss.

    `owed [k]` is how far each domain is behind its share, in windows.
    """

    def __init__(
        self,
        model,
        held_out: Mapping[str, torch.Tensor],
        references,
        every: int,
        steps: int,
        batch: int,
    ):
        super().__init__()
        self.model = model
        self._held_out = held_out
        self._references = references
        self._every = every
        count = len(held_out)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("owed", torch.zeros(count))
        self.register_buffer("losses", torch.zeros(steps // every + 1, count))
        self.register_buffer("shares", torch.full((steps // every + 1, count), 1 / count))
        self.register_buffer("drawn", torch.zeros(steps, batch, dtype=torch.int64))

    def update(self) -> None:
        """Measure the domains if it is time to, and set the shares that follow."""
        number, late = divmod(int(self.step), self._every)
        if late:
            return
        mode = self.model.training
        self.losses[number] = domain_losses(self.model.eval(), self._held_out)
        self.model.train(mode)
        if number:
            self.shares[number] = self.shares[number - 1]
        if number and self._references is not None:
            self.shares[number] = new_shares(
                self.shares[number], self.losses[number], self._references
            )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Next-token loss of one window of each row of `batch [windows, domains, length]`."""
        self.update()
        step = int(self.step)
        for row in range(len(batch)):
            self.owed += self.shares[step // self._every]
            self.drawn[step, row] = self.owed.argmax()
            self.owed[self.drawn[step, row]] -= 1
        self.step += 1
        chosen = self.drawn[step].to(batch.device)
        return next_token_loss(
            self.model, batch[torch.arange(len(batch), device=batch.device), chosen]
        )
