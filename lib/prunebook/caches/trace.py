"""Which tokens a pruned cache holds, from the prompt to the last token."""

from collections.abc import Callable

import torch
from transformers import Cache

from ..errors import UserError
from .layer import PrunedLayer
from .quality import check_prompt


@torch.no_grad()
def held_positions(
    model, text: torch.Tensor, cache: Callable[[], Cache], *, prompt: int
) -> torch.Tensor:
    """Read a prompt, then token by token: bool `[layers, kv heads, steps + 1, length]`, True where
    a position of the text is held after the prompt and after each of the `length - prompt` tokens.

    Args:
        text: int64 `[length]`.
        cache: makes a pruned cache, as `lambda: H2OCache(0.2)`.
        prompt: tokens read first.

    Raises:
        UserError: bad text or prompt, a cache that is not pruned, or a model that the cache
            refuses.
    """
    check_prompt(model, text[None], prompt, "text")
    tokens = text[None].to(model.device)
    made = cache()
    states = []
    for part in [tokens[:, :prompt], *tokens[:, prompt:].split(1, dim=1)]:
        model(input_ids=part, past_key_values=made, logits_to_keep=1)
        if not isinstance(made.layers[0], PrunedLayer):
            raise UserError(
                f"{type(made).__name__} holds every token; trace a pruned cache, as H2OCache(0.2)"
            )
        states.append(torch.stack([_held(layer.positions[0], len(text)) for layer in made.layers]))
    return torch.stack(states, 2)


def _held(positions: torch.Tensor, length: int) -> torch.Tensor:
    """`[kv heads, length]` of slots `[kv heads, slots]`; empty slots, -1, go into a column of their
    own."""
    held = torch.zeros(len(positions), length + 1, dtype=torch.bool, device=positions.device)
    return held.scatter_(1, positions.where(positions >= 0, length), True)[:, :length].cpu()
