"""What a cache costs in quality: text read under a budget, and a passage to be found again.

A single forward pass shows no effect, as the prompt's attention is exact. So the prompt is read in
one pass and the rest after it; a pruned cache takes these tokens one after the other, as in
generation.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import Cache, DynamicCache, PreTrainedModel

from ..data.token_check import check_tokens
from ..errors import UserError
from ..measure.baseline import check_head
from ..measure.quality import Measurement
from ..validation import check_share, is_whole

WINDOWS_PER_PASS = 8  # a step of a pruned cache takes hardly longer for eight than for one
LOGITS_PER_PASS = 1024  # tokens whose logits are held at once: 200 MB in float32 for 49,152 words


@torch.no_grad()
def measure(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    cache: Callable[[], Cache] = DynamicCache,
    *,
    prompt: int,
) -> Measurement:
    """NLL of the tokens after the prompt: its `nll [n]` is the mean of each window, float32.

    Passes are in the model's dtype.

    Args:
        model: a causal language model.
        tokens: int64 `[n, length]`, whole windows.
        cache: makes a new cache, e.g. `lambda: H2OCache(budget=0.2)`; the plain cache unless given.
        prompt: tokens of each window that are read first, 1 to length - 1.

    Raises:
        UserError: bad tokens or prompt, or a model that the cache refuses.
    """
    check_prompt(model, tokens, prompt)
    start = time.perf_counter()
    nll = []
    for batch in tokens.split(WINDOWS_PER_PASS):
        batch = batch.to(model.device)
        targets = batch[:, prompt:]
        losses = []
        for first, logits in _continued(model, batch, prompt, cache()):
            part = targets[:, first : first + logits.shape[1]]
            losses.append(F.cross_entropy(logits.float().mT, part, reduction="none"))
        nll.append(torch.cat(losses, 1).mean(1).cpu())
    predicted = len(tokens) * (tokens.shape[1] - prompt)
    return Measurement(torch.cat(nll), None, None, time.perf_counter() - start, predicted, "exact")


def check_prompt(
    model: PreTrainedModel, tokens: torch.Tensor, prompt: int, name: str = "tokens"
) -> None:
    """Check that a causal model can read a prompt and predict the tokens after it.

    Args:
        model: the model.
        tokens: int64 `[n, length]`.
        prompt: tokens of each window that are read first.
        name: what a message calls the tokens.

    Raises:
        UserError: it cannot.
    """
    check_head(model)
    check_tokens(model, tokens, name)
    if not is_whole(prompt) or not 1 <= prompt < tokens.shape[1]:
        raise UserError(
            f"prompt {prompt!r} is not allowed; use 1 to {tokens.shape[1] - 1} tokens of each "
            "window"
        )


def perplexity(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    cache: Callable[[], Cache] = DynamicCache,
    *,
    prompt: int,
) -> float:
    """exp(mean NLL of the tokens after the prompt); arguments and errors as for `measure`."""
    return measure(model, tokens, cache, prompt=prompt).perplexity


@dataclass(frozen=True)
class Recall:
    """Whether a passage was found again.

    log_probability: mean over the tokens to be reproduced, in nats, each after the true ones.
    reproduced: each of them was the most probable, so that greedy decoding would write them all.
    """

    log_probability: float
    reproduced: bool


@torch.no_grad()
def recall(
    model: PreTrainedModel,
    text: torch.Tensor,
    passage: torch.Tensor,
    cache: Callable[[], Cache] = DynamicCache,
    *,
    depth: float = 0.5,
    cue: int = 8,
) -> Recall:
    """Plant a passage in text, repeat its first tokens, and see whether the model goes on.

    Args:
        model: a causal language model.
        text: int64 `[length]`.
        passage: int64 `[m]`.
        cache: makes a new cache, as for `measure`.
        depth: where the passage is planted, as a fraction of the text.
        cue: tokens of the passage that are repeated at the end of the prompt, 1 to m - 1.

    Raises:
        UserError: bad tokens, depth or cue, or a model that the cache refuses.
    """
    for name, part in (("text", text), ("passage", passage)):
        if part.ndim != 1:
            raise UserError(f"{name} {list(part.shape)} is not allowed; use tokens [length]")
    check_share("depth", depth, "a fraction of the text in [0, 1]")
    if not is_whole(cue) or not 1 <= cue < len(passage):
        raise UserError(
            f"cue {cue!r} is not allowed; use 1 to {len(passage) - 1} tokens of the passage"
        )
    check_head(model)
    before = round(len(text) * depth)
    tokens = torch.cat([text[:before], passage, text[before:], passage])[None]
    check_tokens(model, tokens, "text with its passage")
    prompt = len(text) + len(passage) + cue
    parts = _continued(model, tokens.to(model.device), prompt, cache())
    logits = torch.cat([part[0].float() for _, part in parts]).cpu()
    targets = passage[cue:].cpu()
    log_probability = -F.cross_entropy(logits, targets).item()
    return Recall(log_probability, torch.equal(logits.argmax(-1), targets))


def _continued(
    model: PreTrainedModel, tokens: torch.Tensor, prompt: int, cache: Cache
) -> Iterator[tuple[int, torch.Tensor]]:
    """Read a prompt, then the rest of the windows in parts.

    Yields:
        `(first, logits [n, count, vocabulary])`; these predict `count` tokens from
        `tokens[:, prompt + first]` on.
    """
    yield 0, model(input_ids=tokens[:, :prompt], past_key_values=cache, logits_to_keep=1).logits
    rest = tokens[:, prompt:-1]
    size = max(LOGITS_PER_PASS // len(tokens), 1)
    for first in range(0, rest.shape[1], size):
        part = rest[:, first : first + size]
        yield first + 1, model(input_ids=part, past_key_values=cache).logits
