"""What a cache keeps: how many tokens of a prompt, and which by their scores."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import UserError
from ..kernels.noise import Perturbation
from ..validation import check_whole, is_whole
from .attention import install

UNLIMITED = 1 << 40  # tokens of a budget of 1.0


@dataclass(frozen=True)
class CacheBudget:
    """The budget of one KV head in one layer.

    Args:
        total: a fraction in (0, 1] of the prompt's tokens, rounded down; 1.0 keeps every token,
            generated ones too. Or a whole number of tokens.
        recent: of the total, the newest tokens: a fraction in [0, 1], rounded down, or a whole
            number. The newest token itself always stays, so that 0 is one token.
        sinks: of the total, the first tokens, which are to stay.

    Raises:
        UserError: anything else, or a recent window or sinks that do not fit into the total.
    """

    total: float | int
    recent: float | int
    sinks: int = 0

    def __post_init__(self):
        fraction = isinstance(self.total, float) and 0 < self.total <= 1
        if not fraction and not (is_whole(self.total) and self.total >= 1):
            raise UserError(
                f"budget {self.total!r} is not allowed; use a fraction of the prompt in (0, 1], as "
                "0.2, or a whole number of tokens >= 1, as 256"
            )
        share = isinstance(self.recent, float) and 0 <= self.recent <= 1
        if not share and not (is_whole(self.recent) and self.recent >= 0):
            raise UserError(
                f"recent {self.recent!r} is not allowed; use a fraction of the budget in [0, 1], "
                "as 0.5, or a whole number of tokens >= 0, as 32"
            )
        check_whole("sinks", self.sinks, 0)
        if is_whole(self.total):
            self._check_room(self.total)

    def tokens(self, prompt: int) -> tuple[int, int]:
        """`(k, k_r)`: all tokens that may stay, and the newest among them, for a prompt of so many
        tokens.

        Raises:
            UserError: the fraction of this prompt is less than one token, or the recent window or
                the sinks do not fit.
        """
        total = self.total
        if isinstance(total, float):
            total = UNLIMITED if total == 1 else int(prompt * total + 1e-9)
            if total < 1:
                raise UserError(
                    f"budget {self.total} of a prompt of {prompt} tokens is less than one token; "
                    "use a larger fraction or a whole number of tokens"
                )
        self._check_room(total)
        recent = self.recent if is_whole(self.recent) else int(total * self.recent + 1e-9)
        return total, max(recent, 1)

    def _check_room(self, total: int) -> None:
        if self.sinks >= total:
            raise UserError(
                f"sinks {self.sinks} leave no room in a budget of {total} tokens; use at most "
                f"{total - 1}"
            )
        if is_whole(self.recent) and self.recent > total:
            raise UserError(
                f"recent {self.recent} is larger than the budget of {total} tokens; use at most "
                f"{total}, or a fraction of the budget, as 0.5"
            )


@dataclass
class EvictionPolicy:
    """What the layers of one cache share.

    budget: of every row, layer and KV head.
    mass: each query adds its attention weights to the scores of the keys it
    sees.
    perturb: `(layer, queries, steps)` to the perturbation of logits before these weights, from the
    positions of queries `[batch or 1, n]` and the tokens read after the prompt `[batch]`; None for
    none, as it must be without mass.
    start: `(layer, positions [batch, 1, n], kv heads)` to the score that a key enters with,
    `[batch, kv heads or 1, n]`, None for 0.
    average: tokens are compared by their score divided by the number of queries that saw them.
    waiting: keys were given to attention that has not come back with its queries.
    """

    budget: CacheBudget
    mass: bool = False
    perturb: Callable[[int, torch.Tensor, torch.Tensor], Perturbation] | None = None
    start: Callable[[int, torch.Tensor, int], torch.Tensor] | None = None
    average: bool = False
    waiting: bool = False

    def __post_init__(self):
        if self.perturb is not None and not self.mass:
            raise UserError("perturb is of the attention mass; give mass=True with it")
        install()
