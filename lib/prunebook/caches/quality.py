"""What a cache costs in quality: text read under a budget, and a passage to be found again.

A single forward pass shows no effect, as the prompt's attention is exact. So the prompt is read in
one pass and the rest after it, where a pruned cache takes tokens one after the other, as in
generation.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import Cache, DynamicCache

from ..data.windows import check_tokens
from ..errors import UserError
from ..measure.quality import Measurement, check_head
from ..validation import check_share, is_whole

_ROWS = 8  # windows read together: a step of a pruned cache takes hardly longer than for one
_BATCH_TOKENS = 1024  # of logits held at once: 200 MB in float32 for 49,152 words


@torch.no_grad()
def measure(
    model, tokens: torch.Tensor, cache: Callable[[], Cache] = DynamicCache, *, prompt: int
) -> Measurement:
    """Mean NLL of the tokens after the prompt, a window: `nll [n]`, float32; passes are in the
    model's dtype.

    Args:
        tokens: int64 `[n, length]`, whole windows.
        cache: makes a new cache, as `lambda: H2OCache(budget=0.2)`; the
            plain cache unless given.
        prompt: tokens of each window that are read first, 1 to length - 1.

    Raises:
        UserError: bad tokens or prompt, or a model that the cache refuses.
    """
    check_prompt(model, tokens, prompt)
    start = time.perf_counter()
    nll = []
    for batch in tokens.split(_ROWS):
        batch = batch.to(model.device)
        parts = _continued(model, batch, prompt, cache())
        wanted = batch[:, prompt:]
        losses = [
            F.cross_entropy(z.float().mT, wanted[:, at : at + z.shape[1]], reduction="none")
            for at, z in parts
        ]
        nll.append(torch.cat(losses, 1).mean(1).cpu())
    predicted = len(tokens) * (tokens.shape[1] - prompt)
    return Measurement(torch.cat(nll), None, None, time.perf_counter() - start, predicted, "exact")


def check_prompt(model, tokens: torch.Tensor, prompt: int, name: str = "tokens") -> None:
    """Raise a `UserError` unless a causal model can read `prompt` of `tokens [n, length]` and
    predict the others."""
    check_head(model)
    check_tokens(model, tokens, name)
    if not is_whole(prompt) or not 1 <= prompt < tokens.shape[1]:
        raise UserError(
            f"prompt {prompt!r} is not allowed; use 1 to {tokens.shape[1] - 1} tokens of each "
            "window"
        )


def perplexity(
    model, tokens: torch.Tensor, cache: Callable[[], Cache] = DynamicCache, *, prompt: int
) -> float:
    """exp(mean NLL of the tokens after the prompt); see `measure`."""
    return measure(model, tokens, cache, prompt=prompt).perplexity


@dataclass(frozen=True)
class Recall:
    """Whether a passage was found again. `log_probability`: mean of the tokens to be reproduced, in
    nats, each after the true ones. `reproduced`: each of them was the most probable, so that greedy
    decoding would write them all."""

    log_probability: float
    reproduced: bool


@torch.no_grad()
def recall(
    model,
    text: torch.Tensor,
    passage: torch.Tensor,
    cache: Callable[[], Cache] = DynamicCache,
    *,
    depth: float = 0.5,
    cue: int = 8,
) -> Recall:
    """Plant a passage in text, repeat its first tokens after the text, and see whether the model
    goes on with the rest.

    Args:
        text: int64 `[length]`.
        passage: int64 `[m]`.
        depth: where, as a fraction of the text.
        cue: tokens of the
            passage that are repeated at the end of the prompt, 1 to m - 1.

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
    logits = torch.cat([z[0].float() for _, z in parts]).cpu()
    wanted = passage[cue:].cpu()
    found = -F.cross_entropy(logits, wanted).item()
    return Recall(found, torch.equal(logits.argmax(-1), wanted))


def _continued(
    model, tokens: torch.Tensor, prompt: int, cache: Cache
) -> Iterator[tuple[int, torch.Tensor]]:
    """`(first, logits [n, count, vocabulary])`: a part's logits, which predict `tokens[:, prompt +
    first:]`."""
    yield 0, model(input_ids=tokens[:, :prompt], past_key_values=cache, logits_to_keep=1).logits
    rest = tokens[:, prompt:-1]
    size = max(_BATCH_TOKENS // len(tokens), 1)
    for first in range(0, rest.shape[1], size):
        part = rest[:, first : first + size]
        yield first + 1, model(input_ids=part, past_key_values=cache).logits
