"""One layer of a pruned cache: slots, their scores, and which token goes."""

from collections.abc import Callable

import torch
from transformers.cache_utils import CacheLayerMixin

from ..errors import UserError
from ..kernels.attention_decode import decode_with_mass
from ..kernels.attention_mass import attention_mass
from ..kernels.compaction import take_kept
from ..kernels.noise import Perturbation
from .attention import ALLOWED, OWNER
from .policy import EvictionPolicy

_GROWTH = 64  # slots added at once while the budget is not reached


class PrunedLayer(CacheLayerMixin):
    """Slots of keys and values `[batch, kv heads, slots, width]`, never more than the budget and
    one.

    The first forward pass is the prompt: of its tokens the newest `k_r` stay and the best `k - k_r`
    of the others. Each later token takes an empty slot and attends to all that are held; where a
    row then holds more than k tokens, the one with the lowest score outside the newest `k_r`
    leaves, of equal scores the earliest. Rotary positions are the original ones. The order of slots
    means nothing to the softmax, so a slot is overwritten in place.

    positions: int64 `[batch, kv heads, slots]`, of a row's own tokens without padding; -1 is an
    empty slot. scores: of the same shape. length, prompt, total, recent: int64 `[batch]`, tokens
    read, tokens of the prompt, k and k_r: each row has its own budget.
    """

    supports_early_init = False
    _STATE = ("keys", "values", "positions", "scores", "length", "prompt", "total", "recent")

    def __init__(self, plan: EvictionPolicy):
        super().__init__()
        self.plan = plan
        self._forget()

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        """The new keys and values as they are, marked with this layer: `attention.install` takes it
        from there.

        Raises:
            UserError: the attention that got the last keys did not come back with its queries.
        """
        if self.plan.waiting:
            self.plan.waiting = False  # the cache may go on with another model
            raise UserError(
                f"this model's attention does not show its queries to the cache; {ALLOWED}"
            )
        self.plan.waiting = True
        setattr(key_states, OWNER, self)
        return key_states, value_states

    @torch.no_grad()
    def read_prompt(
        self, query, keys, values, valid: torch.Tensor, scaling: float, index: int
    ) -> None:
        """Score the prompt's tokens and keep a budget of them.

        Args:
            query, keys, values: `[batch, heads, n, width]`, after the rotary embedding.
            valid: bool `[batch, n]`, no
                padding.
            index: of this layer.
        """
        batch, kv_heads, n, _ = keys.shape
        positions = (valid.cumsum(1) - 1).masked_fill_(~valid, -1)
        self.index = index
        self.dtype = torch.promote_types(keys.dtype, torch.float32)
        self.device = keys.device
        lengths = valid.sum(1)
        counts = lengths.tolist()
        if not all(counts):
            raise UserError(
                f"row {counts.index(0)} of the batch is padding alone; give every row a token"
            )
        budgets = [self.plan.budget.tokens(count) for count in counts]
        self.total, self.recent = torch.tensor(budgets, device=self.device).unbind(1)
        self.length = self.prompt = lengths
        held = [min(count, total) for count, (total, _) in zip(counts, budgets, strict=True)]
        self.seen = n
        self.most = max(total for total, _ in budgets)
        self.filled = max(held)

        # one for all rows where nothing is padded
        shared = positions[:1] if min(counts) == n else positions
        scores = self._entering(positions, kv_heads).expand(batch, kv_heads, n)
        if self.plan.mass:
            scores = scores + attention_mass(
                query, keys, shared, scaling, perturbation=self._perturbation(shared)
            )
        within = positions >= (self.length - self.recent)[:, None]
        rank = self._compared(scores, positions[:, None]).masked_fill(within[:, None], torch.inf)
        rank = rank.masked_fill_((positions < 0)[:, None], -torch.inf)
        # of equals the earliest is first to go
        best = rank.sort(dim=-1, stable=True).indices[..., -self.filled :]
        held = torch.tensor(held, device=self.device)[:, None, None]
        slots = torch.arange(self.filled + 1, device=self.device)  # one more, for the next token
        # the others are beyond the budget of their row
        among = (slots[:-1] >= self.filled - held).expand(best.shape)
        keep = torch.zeros_like(rank, dtype=torch.bool).scatter_(2, best, among)
        rows = keys, values, positions[:, None].expand(rank.shape), scores
        self.keys, self.values, self.positions, self.scores = take_kept(keep, len(slots), rows)
        self.positions.masked_fill_(slots >= held, -1)
        self.is_initialized = True

    @torch.no_grad()
    def decode(self, query, keys, values, valid: torch.Tensor, scaling: float) -> torch.Tensor:
        """Attention of new tokens over the slots, one token after the other: `[batch, new, heads,
        width]`.

        Args:
            query, keys, values: `[batch, heads, new, width]`.
            valid: bool `[batch, new]`, no padding.
        """
        self.seen += query.shape[2]
        new = zip(query.unbind(2), keys.unbind(2), values.unbind(2), valid.unbind(1), strict=True)
        return torch.stack([self._step(*token, scaling) for token in new], 1)

    def _step(self, query, key, value, valid, scaling: float) -> torch.Tensor:
        """Store a token of each row, attend, add to the scores, let one token go: `[batch, heads,
        width]`."""
        if self.filled == self.positions.shape[2]:
            self._grow(min(_GROWTH, self.most + 1 - self.filled))
        self._store(key, value, self.length.masked_fill(~valid, -1))
        self.length = self.length + valid
        given = query, self.keys, self.values, self.positions
        output, added = decode_with_mass(*given, scaling, self._perturbation())
        if self.plan.mass:
            self.scores += added * valid[:, None, None]
        self._evict(valid)
        return output

    def _perturbation(self, queries: torch.Tensor | None = None) -> Perturbation | None:
        """Of the logits of `queries`, their positions, by default of the newest token of each
        row."""
        if self.plan.perturb is None:
            return None
        queries = self.length[:, None] - 1 if queries is None else queries
        return self.plan.perturb(self.index, queries, self.length - self.prompt)

    def _store(self, key, value, position: torch.Tensor) -> None:
        """Write a token into the first empty slot of each KV head; padding leaves the slot
        empty."""
        slot = (self.positions < 0).to(torch.uint8).argmax(-1, keepdim=True)
        entering = self._entering(position[:, None], slot.shape[1]).expand(slot.shape)
        self.scores.scatter_(2, slot, entering)
        self.positions.scatter_(2, slot, position[:, None, None].expand(slot.shape))
        for slots, new in ((self.keys, key), (self.values, value)):
            slots.scatter_(2, slot[..., None].expand(*slot.shape, new.shape[-1]), new[:, :, None])
        self.filled += 1

    def _evict(self, valid: torch.Tensor) -> None:
        """Where a row holds more than its budget, empty the slot with the lowest score outside the
        recent window."""
        over = valid & (self.length > self.total)
        outside = (self.positions >= 0) & (
            self.positions < (self.length - self.recent)[:, None, None]
        )
        compared = self._compared(self.scores, self.positions)
        lowest = compared.masked_fill(~outside, torch.inf).amin(-1, keepdim=True)
        equal = outside & (compared == lowest)
        victim = self.positions.masked_fill(~equal, torch.iinfo(torch.int64).max).argmin(
            -1, keepdim=True
        )
        left = self.positions.gather(2, victim).masked_fill_(over[:, None, None], -1)
        self.positions.scatter_(2, victim, left)
        self.filled = min(self.filled, self.most)

    def _compared(self, scores: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """What decides who leaves, of the shape of `scores`; the lowest is first to go."""
        return scores / (self.length[:, None, None] - positions) if self.plan.average else scores

    def _entering(self, positions: torch.Tensor, kv_heads: int) -> torch.Tensor:
        """Scores with which tokens at `positions [batch, n]` enter: `[batch, kv heads or 1, n]`."""
        if self.plan.start is None:
            return torch.zeros(1, 1, 1, dtype=self.dtype, device=self.device)
        return self.plan.start(self.index, positions[:, None], kv_heads).to(self.dtype)

    def _grow(self, count: int) -> None:
        """Add empty slots."""
        pad = torch.nn.functional.pad
        self.keys, self.values = (pad(x, (0, 0, 0, count)) for x in (self.keys, self.values))
        self.positions = pad(self.positions, (0, count), value=-1)
        self.scores = pad(self.scores, (0, count))

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: slots are made at the end of the prompt, whose length the budget depends on."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Masks are made as for a cache that keeps everything; only their columns of new tokens are
        read."""
        return self.seen + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens seen, padding included, so that positions go on."""
        return self.seen

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    def reset(self) -> None:
        """Forget everything; the next forward pass is a prompt."""
        self._forget()
        self.plan.waiting = False

    def _forget(self) -> None:
        for name in self._STATE:
            setattr(self, name, None)
        self.is_initialized = False
        self.seen = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Raise a `UserError`: evicted tokens cannot come back, as assisted decoding would need."""
        raise UserError(
            "a pruned cache cannot be cropped; generate without an assistant model or prompt lookup"
        )

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self._select(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._select(lambda x: x.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._select(lambda x: x[indices])

    def _select(self, rows: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Rows of the batch: of keys and values, and of all that is known about them."""
        if self.is_initialized:
            for name in self._STATE:
                setattr(self, name, rows(getattr(self, name)))
