"""Whether a model can read given tokens."""

from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import UserError


def check_tokens(model: PreTrainedModel, tokens: Any, name: str = "calibration") -> None:
    """Raise a `UserError` unless a model can read the tokens.

    Args:
        model: the model, which says how many words and positions there are.
        tokens: int64 `[n, length]`, not empty, with ids inside the vocabulary.
        name: what the message calls them.
    """
    if not isinstance(tokens, torch.Tensor):
        _raise_not_tokens(name, type(tokens).__name__)
    if tokens.dtype != torch.int64 or tokens.ndim != 2 or not tokens.numel():
        _raise_not_tokens(name, f"{tokens.dtype} {list(tokens.shape)}")
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit and tokens.shape[1] > limit:
        raise UserError(
            f"{name} has windows of {tokens.shape[1]} tokens; the model's positions end at {limit}"
        )
    vocabulary = model.get_input_embeddings().num_embeddings
    for token_id in (tokens.min().item(), tokens.max().item()):
        if not 0 <= token_id < vocabulary:
            raise UserError(
                f"{name} holds token id {token_id}, outside the vocabulary 0..{vocabulary - 1}"
            )


def _raise_not_tokens(name: str, received: str) -> None:
    raise UserError(f"{name} must be an int64 tensor [n, length], not empty, not {received}")
