"""Which tokens a pruned cache holds, from the prompt to the last token."""

from collections.abc import Callable

import torch
from transformers import Cache, PreTrainedModel

from ..errors import UserError
from .layer import PrunedLayer
from .quality import check_prompt


@torch.no_grad()
def held_positions(
    model: PreTrainedModel, text: torch.Tensor, cache: Callable[[], Cache], *, prompt: int
) -> torch.Tensor:
    """Read a prompt, then token by token, and record which positions of the text are held.

    Args:
        model: a causal language model.
        text: int64 `[length]`.
        cache: makes a pruned cache, e.g. `lambda: H2OCache(0.2)`.
        prompt: tokens read first.

    Returns:
        bool `[layers, kv heads, steps + 1, length]`, True where a position is held after the prompt
        and after each of the `length - prompt` tokens.

    Raises:
        UserError: bad text or prompt, a cache that is not pruned, or a model that the cache
            refuses.
    """
    check_prompt(model, text[None], prompt, "text")
    tokens = text[None].to(model.device)
    traced = cache()
    states = []
    for part in [tokens[:, :prompt], *tokens[:, prompt:].split(1, dim=1)]:
        model(input_ids=part, past_key_values=traced, logits_to_keep=1)
        if not isinstance(traced.layers[0], PrunedLayer):
            raise UserError(
                f"{type(traced).__name__} holds every token; trace a pruned cache, e.g. "
                "H2OCache(0.2)"
            )
        held = [_is_held(layer.positions[0], len(text)) for layer in traced.layers]
        states.append(torch.stack(held))
    return torch.stack(states, 2)


def _is_held(positions: torch.Tensor, length: int) -> torch.Tensor:
    """Whether each position of the text is in a slot: bool `[kv heads, length]` on the CPU.

    Args:
        positions: int64 `[kv heads, slots]`; -1 is an empty slot.
        length: tokens of the text.
    """
    # Empty slots are written into one more column, which is cut off.
    held = torch.zeros(len(positions), length + 1, dtype=torch.bool, device=positions.device)
    columns = positions.where(positions >= 0, length)
    return held.scatter_(1, columns, True)[:, :length].cpu()
