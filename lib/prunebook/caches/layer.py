"""One layer of a pruned cache: slots, their scores, and which token leaves."""

import torch
from torch import Tensor

from ..errors import UserError
from ..kernels.attention.compaction import take_kept
from ..kernels.attention.decode import decode_with_mass
from ..kernels.attention.mass import attention_mass
from ..kernels.attention.noise import Perturbation
from .attention import ALLOWED, OWNER
from .slots import SlotLayer

SLOTS_ADDED = 64  # slots that are added at once while the budget is not reached


class PrunedLayer(SlotLayer):
    """Slots of keys and values `[batch, kv heads, slots, width]`: the budget and one more.

    The first forward pass is the prompt: of its tokens the newest `k_r` stay and the best `k - k_r`
    of the others. Each later token takes an empty slot and attends to all that are held. Where a
    row then holds more than k tokens, the one with the lowest score outside the newest `k_r`
    leaves; of equal scores, the earliest. Rotary positions are the original ones. The order of
    slots means nothing to the softmax, so a slot is overwritten in place.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):
        """The new keys and values as they are; the keys carry this layer to `attention.install`.

        Raises:
            UserError: the attention that got the last keys did not come back with its queries.
        """
        if self.policy.waiting:
            self.policy.waiting = False  # the cache may go on with another model
            raise UserError(
                f"this model's attention does not show its queries to the cache; {ALLOWED}"
            )
        self.policy.waiting = True
        setattr(key_states, OWNER, self)
        return key_states, value_states

    @torch.no_grad()
    def read_prompt(
        self, query: Tensor, keys: Tensor, values: Tensor, valid: Tensor, scaling: float, index: int
    ) -> None:
        """Score the prompt's tokens and keep a budget of them.

        Args:
            query: `[batch, heads, n, width]`, after the rotary embedding.
            keys: `[batch, kv heads, n, width]`, after the rotary embedding.
            values: `[batch, kv heads, n, width]`.
            valid: bool `[batch, n]`, False for padding.
            scaling: factor of the logits.
            index: index of this layer.
        """
        batch, kv_heads, n, _ = keys.shape
        self.index = index
        self.dtype = torch.promote_types(keys.dtype, torch.float32)
        self.device = keys.device
        held = self._set_budgets(valid.sum(1))
        self.seen = n

        # Score each token: what it enters with, and the attention of all queries that see it.
        positions = (valid.cumsum(1) - 1).masked_fill_(~valid, -1)
        # Without padding all rows have the same positions.
        shared = positions[:1] if valid.all() else positions
        scores = self._initial_scores(positions, kv_heads).expand(batch, kv_heads, n)
        if self.policy.mass:
            perturbation = self._perturbation(shared)
            scores = scores + attention_mass(
                query, keys, shared, scaling, perturbation=perturbation
            )

        # Rank them: the newest k_r before all others, padding after them.
        recent = positions >= (self.length - self.recent)[:, None]
        rank = self._compared(scores, positions[:, None]).masked_fill(recent[:, None], torch.inf)
        rank = rank.masked_fill_((positions < 0)[:, None], -torch.inf)

        # Keep the best k. The sort is stable, so that of equal scores the latest stay.
        best = rank.sort(dim=-1, stable=True).indices[..., -self.filled :]
        slots = torch.arange(self.filled + 1, device=self.device)  # one more, for the next token
        within_budget = (slots[:-1] >= self.filled - held).expand(best.shape)
        keep = torch.zeros_like(rank, dtype=torch.bool).scatter_(2, best, within_budget)

        # Copy what stays into slots.
        kept = keys, values, positions[:, None].expand(rank.shape), scores
        self.keys, self.values, self.positions, self.scores = take_kept(keep, len(slots), kept)
        self.positions.masked_fill_(slots >= held, -1)
        self.is_initialized = True

    def _set_budgets(self, lengths: Tensor) -> Tensor:
        """Set the budget of each row, of `lengths [batch]` tokens; returns how many of them stay.

        The result is int64 `[batch, 1, 1]`.
        """
        counts = lengths.tolist()
        if not all(counts):
            raise UserError(
                f"row {counts.index(0)} of the batch is padding alone; give every row a token"
            )
        budgets = [self.policy.budget.tokens(count) for count in counts]
        held = [min(count, total) for count, (total, _) in zip(counts, budgets, strict=True)]
        self.total, self.recent = torch.tensor(budgets, device=self.device).unbind(1)
        self.length = self.prompt = lengths
        self.most = max(total for total, _ in budgets)
        self.filled = max(held)
        return torch.tensor(held, device=self.device)[:, None, None]

    @torch.no_grad()
    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, valid: Tensor, scaling: float
    ) -> Tensor:
        """Attention of new tokens over the slots, one token after the other.

        Args:
            query: `[batch, heads, new, width]`.
            keys: `[batch, kv heads, new, width]`.
            values: `[batch, kv heads, new, width]`.
            valid: bool `[batch, new]`, False for padding.
            scaling: factor of the logits.

        Returns:
            `[batch, new, heads, width]`.
        """
        self.seen += query.shape[2]
        new = zip(query.unbind(2), keys.unbind(2), values.unbind(2), valid.unbind(1), strict=True)
        return torch.stack([self.step(*token, scaling) for token in new], 1)

    def step(
        self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor, scaling: float
    ) -> Tensor:
        """`decode` of one token a row: store it, attend, add to the scores, let one token leave.

        Shapes are those of `decode` without the dimension of the tokens.
        """
        if self.filled == self.positions.shape[2]:
            self._grow(min(SLOTS_ADDED, self.most + 1 - self.filled))
        self._store(key, value, self.length.masked_fill(~valid, -1))
        self.length = self.length + valid
        output, mass = decode_with_mass(
            query, self.keys, self.values, self.positions, scaling, self._perturbation()
        )
        if self.policy.mass:
            self.scores += mass * valid[:, None, None]
        self.evict(valid)
        return output

    def _perturbation(self, queries: Tensor | None = None) -> Perturbation | None:
        """The perturbation of the logits of `queries`, positions `[batch or 1, n]`.

        By default these are the newest token of each row. None for no perturbation.
        """
        if self.policy.perturb is None:
            return None
        if queries is None:
            queries = self.length[:, None] - 1
        return self.policy.perturb(self.index, queries, self.length - self.prompt)

    def _store(self, key: Tensor, value: Tensor, position: Tensor) -> None:
        """Write a token into the first empty slot of each KV head.

        Padding, whose `position [batch]` is -1, leaves the slot empty.
        """
        slot = (self.positions < 0).to(torch.uint8).argmax(-1, keepdim=True)
        entering = self._initial_scores(position[:, None], slot.shape[1]).expand(slot.shape)
        self.scores.scatter_(2, slot, entering)
        self.positions.scatter_(2, slot, position[:, None, None].expand(slot.shape))
        for slots, new in ((self.keys, key), (self.values, value)):
            slots.scatter_(2, slot[..., None].expand(*slot.shape, new.shape[-1]), new[:, :, None])
        self.filled += 1

    def evict(self, valid: Tensor) -> None:
        """Where a row holds more than its budget, empty the slot with the lowest score.

        The recent window always stays. `valid [batch]` is False for rows that got padding.
        """
        # A row held min(length, total) tokens before this one. It holds one too many once it has
        # read more than its total.
        over_budget = valid & (self.length > self.total)
        oldest_recent = (self.length - self.recent)[:, None, None]
        candidates = (self.positions >= 0) & (self.positions < oldest_recent)
        compared = self._compared(self.scores, self.positions)
        lowest = compared.masked_fill(~candidates, torch.inf).amin(-1, keepdim=True)
        # Of equal scores the earliest token leaves.
        equal = candidates & (compared == lowest)
        latest = torch.iinfo(torch.int64).max
        victim = self.positions.masked_fill(~equal, latest).argmin(-1, keepdim=True)
        position = self.positions.gather(2, victim).masked_fill_(over_budget[:, None, None], -1)
        self.positions.scatter_(2, victim, position)
        # The fullest row holds its budget again.
        self.filled = min(self.filled, self.most)

    def _compared(self, scores: Tensor, positions: Tensor) -> Tensor:
        """What decides which token leaves, of the shape of `scores`; the lowest leaves first."""
        if not self.policy.average:
            return scores
        # A token was seen by its own query and by all later ones.
        return scores / (self.length[:, None, None] - positions)

    def _initial_scores(self, positions: Tensor, kv_heads: int) -> Tensor:
        """Scores `[batch, kv heads or 1, n]` with which tokens at `positions [batch, n]` enter."""
        if self.policy.initial_score is None:
            return torch.zeros(1, 1, 1, dtype=self.dtype, device=self.device)
        return self.policy.initial_score(self.index, positions[:, None], kv_heads).to(self.dtype)

    def _grow(self, count: int) -> None:
        """Add so many empty slots."""
        pad = torch.nn.functional.pad
        self.keys, self.values = (pad(x, (0, 0, 0, count)) for x in (self.keys, self.values))
        self.positions = pad(self.positions, (0, count), value=-1)
        self.scores = pad(self.scores, (0, count))
