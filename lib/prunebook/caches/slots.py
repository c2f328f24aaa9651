"""What transformers asks of a cache's layer, but for the attention: sizes, rows and a reset."""

from collections.abc import Callable

from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from ..errors import UserError
from .policy import EvictionPolicy


class SlotLayer(CacheLayerMixin):
    """Slots of keys and values, and what is known of the tokens in them.

    keys: `[batch, kv heads, slots, width]`.
    values: `[batch, kv heads, slots, width]`.
    positions: int64 `[batch, kv heads, slots]`, positions among a row's own tokens without padding;
        -1 is an empty slot.
    scores: scores of the tokens in the slots, of the same shape.
    length: int64 `[batch]`, tokens read.
    prompt: int64 `[batch]`, tokens of the prompt.
    total: int64 `[batch]`, k, the budget of each row.
    recent: int64 `[batch]`, k_r, how much of it is for the newest tokens.
    seen: tokens read, padding included.
    most: the largest budget of a row.
    filled: slots that may be in use, those of the fullest row; at most `most` between two tokens.
    index: index of the layer in its model.
    dtype: dtype of the scores.
    device: device of keys, values and scores.

    Args:
        policy: the rule of the cache, shared with its other layers.
    """

    supports_early_init = False
    _STATE = ("keys", "values", "positions", "scores", "length", "prompt", "total", "recent")

    def __init__(self, policy: EvictionPolicy):
        super().__init__()
        self.policy = policy
        self._forget()

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: slots are made when the prompt is read, as the budget depends on it."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Sizes of a mask over all tokens seen; only its columns of new tokens are read."""
        return self.seen + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens seen, padding included, so that positions go on."""
        return self.seen

    def get_max_length(self) -> int:
        """-1: there is no maximum."""
        return -1

    def reset(self) -> None:
        """Forget everything; the next forward pass is a prompt."""
        self._forget()
        self.policy.waiting = False

    def _forget(self) -> None:
        """Drop keys, values and all that is known about them."""
        for name in self._STATE:
            setattr(self, name, None)
        self.is_initialized = False
        self.seen = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Raise a `UserError`: evicted tokens cannot come back, as assisted decoding would need."""
        raise UserError(
            "a pruned cache cannot be cropped; generate without an assistant model or prompt lookup"
        )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the rows of a beam search, by index."""
        self._select(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row so many times."""
        self._select(lambda x: x.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some of the rows, by index."""
        self._select(lambda x: x[indices])

    def _select(self, rows: Callable[[Tensor], Tensor]) -> None:
        """Replace keys, values and all that is known about them by a selection of their rows."""
        if self.is_initialized:
            for name in self._STATE:
                setattr(self, name, rows(getattr(self, name)))
