"""What a cache keeps: how many tokens of a prompt, and which by their scores."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import UserError
from ..kernels.attention.noise import Perturbation
from ..validation import check_whole, is_whole
from .attention import install

UNLIMITED = 1 << 40  # tokens that a budget of 1.0 allows


@dataclass(frozen=True)
class CacheBudget:
    """The number of tokens that one KV head of one layer keeps.

    Args:
        total: a fraction in (0, 1] of the prompt's tokens, rounded down; 1.0 keeps every token,
            generated ones too. Or a whole number of tokens.
        recent: how much of the total is for the newest tokens: a fraction in [0, 1], rounded down,
            or a whole number. The newest token itself always stays, so that 0 is one token.
        sinks: how much of the total is for the first tokens of the text: a whole number.

    Raises:
        UserError: anything else, or a recent window or sinks that do not fit into the total.
    """

    total: float | int
    recent: float | int
    sinks: int = 0

    def __post_init__(self):
        is_fraction = isinstance(self.total, float) and 0 < self.total <= 1
        if not is_fraction and not (is_whole(self.total) and self.total >= 1):
            raise UserError(
                f"budget {self.total!r} is not allowed; use a fraction of the prompt in (0, 1], "
                "e.g. 0.2, or a whole number of tokens >= 1, e.g. 256"
            )
        is_share = isinstance(self.recent, float) and 0 <= self.recent <= 1
        if not is_share and not (is_whole(self.recent) and self.recent >= 0):
            raise UserError(
                f"recent {self.recent!r} is not allowed; use a fraction of the budget in [0, 1], "
                "e.g. 0.5, or a whole number of tokens >= 0, e.g. 32"
            )
        check_whole("sinks", self.sinks, 0)
        if is_whole(self.total):
            self._check_room(self.total)

    def tokens(self, prompt: int) -> tuple[int, int]:
        """`(k, k_r)`: how many tokens may stay, and how many of them are the newest.

        Args:
            prompt: number of tokens of the prompt.

        Raises:
            UserError: the fraction of this prompt is less than one token, or the recent window or
                the sinks do not fit.
        """
        total = self.total
        if isinstance(total, float):
            total = self._tokens_of_share(prompt)
        self._check_room(total)
        recent = self.recent
        if not is_whole(recent):
            recent = int(total * recent + 1e-9)
        return total, max(recent, 1)

    def _tokens_of_share(self, prompt: int) -> int:
        """k where the total is a fraction of the prompt."""
        if self.total == 1:
            return UNLIMITED
        total = int(prompt * self.total + 1e-9)
        if total < 1:
            raise UserError(
                f"budget {self.total} of a prompt of {prompt} tokens is less than one token; "
                "use a larger fraction or a whole number of tokens"
            )
        return total

    def _check_room(self, total: int) -> None:
        """Raise a `UserError` unless the sinks and the recent window fit into so many tokens."""
        if self.sinks >= total:
            raise UserError(
                f"sinks {self.sinks} leave no room in a budget of {total} tokens; use at most "
                f"{total - 1}"
            )
        if is_whole(self.recent) and self.recent > total:
            raise UserError(
                f"recent {self.recent} is larger than the budget of {total} tokens; use at most "
                f"{total}, or a fraction of the budget, e.g. 0.5"
            )


# (layer, positions of queries `[batch or 1, n]`, tokens read after the prompt `[batch]`) -> how the
# logits of these queries are perturbed before they become weights
Perturb = Callable[[int, torch.Tensor, torch.Tensor], Perturbation]
# (layer, positions of keys `[batch, 1, n]`, number of KV heads) -> their scores when they enter,
# `[batch, kv heads or 1, n]`
InitialScore = Callable[[int, torch.Tensor, int], torch.Tensor]


@dataclass
class EvictionPolicy:
    """The rule of one cache, which all its layers share: how many tokens stay, and how they score.

    budget: number of tokens that each row, layer and KV head keeps.
    mass: add the attention weights of each query to the scores of the keys that it sees.
    perturb: how logits are perturbed before these weights; None for the plain softmax, and without
        mass.
    initial_score: score with which a key enters; None for 0.
    average: compare tokens by their score divided by the number of queries that saw them.
    waiting: state, not an option: keys were handed to an attention that has not yet come back with
        its queries.

    Raises:
        UserError: a perturbation without mass.
    """

    budget: CacheBudget
    mass: bool = False
    perturb: Perturb | None = None
    initial_score: InitialScore | None = None
    average: bool = False
    waiting: bool = False

    def __post_init__(self):
        if self.perturb is not None and not self.mass:
            raise UserError("perturb changes the attention mass; give mass=True with it")
        install()
