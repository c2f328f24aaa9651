"""Keyformer: key tokens by the attention they get under Gumbel noise and a rising temperature, and
the newest.

Adnan et al., Keyformer: KV Cache Reduction through Key Tokens Selection for Efficient Generative
Inference (MLSys 2024, arXiv 2403.09054, equation 9 and Algorithm 1); official code
d-matrix-ai/keyformer-llm at f327831.

As in the official code, noise is fresh for each head, query and key, where the printed algorithm
draws it once. Differences from that code: the token that leaves the window competes, as printed,
where the code loses it for good; what is evicted is freed; a beam keeps its own tokens. Rows of a
batch share their noise, so that a row comes out as it does alone. Grouped queries as in H2O.
"""

from functools import partial

import torch
from transformers import Cache

from ..errors import UserError
from ..kernels.noise import Perturbation, stream_of
from ..validation import check_flag, check_whole
from .layer import PrunedLayer
from .policy import CacheBudget, EvictionPolicy


class KeyformerCache(Cache):
    """A token's score is `f[j] = sum over t >= j of softmax_j((x_t + zeta) / tau_t)`, with x the
    logits and zeta from Gumbel(0, 1). The attention itself is the ordinary softmax.

    Args:
        budget, recent: as for `H2OCache`; the official script has 0.6 and 0.3.
        tau: temperature of the prompt, and the one reached after `new_tokens`, where it stays.
        new_tokens: T, how many tokens will be generated: needed unless both temperatures are equal,
            so by default.
        noise: False for zeta = 0.
        seed: of the noise.

    Raises:
        UserError: an impossible option; in use, a model whose attention cannot be pruned.
    """

    def __init__(
        self,
        budget: float | int = 0.6,
        recent: float | int = 0.3,
        *,
        tau: tuple[float, float] = (1.0, 2.0),
        new_tokens: int | None = None,
        noise: bool = True,
        seed: int = 0,
    ):
        temperature = Temperature(tau, new_tokens)
        check_flag("noise", noise)
        check_whole("seed", seed, 0)

        def perturb(layer: int, queries: torch.Tensor, steps: torch.Tensor) -> Perturbation:
            return Perturbation(
                temperature.after(steps), queries, stream_of(seed, layer) if noise else None
            )

        plan = EvictionPolicy(CacheBudget(budget, recent), mass=True, perturb=perturb)
        super().__init__(layer_class_to_replicate=partial(PrunedLayer, plan))


class Temperature:
    """`tau_init + t (tau_end - tau_init) / T` after t generated tokens, and tau_end beyond T."""

    def __init__(self, tau: tuple[float, float], new_tokens: int | None):
        try:
            self.init, self.end = (float(value) for value in tau)
        except (TypeError, ValueError):
            raise UserError(
                f"tau {tau!r} is not allowed; use two temperatures, as (1.0, 2.0)"
            ) from None
        if not 0.01 <= min(self.init, self.end) <= max(self.init, self.end) < float("inf"):
            raise UserError(
                f"tau {tau!r} is not allowed; use two temperatures of at least 0.01, as (1.0, 2.0)"
            )
        if new_tokens is None and self.init != self.end:
            raise UserError(
                f"tau {tau!r} needs new_tokens, the number of tokens to generate, as new_tokens=64"
            )
        self.new_tokens = 1 if new_tokens is None else new_tokens
        check_whole("new_tokens", self.new_tokens, 1, ", as 64")

    def after(self, steps: torch.Tensor) -> torch.Tensor:
        """Temperatures after so many generated tokens, 0 for the prompt: float32, of the shape of
        `steps`."""
        return self.init + (steps.float() / self.new_tokens).clamp(max=1) * (self.end - self.init)
