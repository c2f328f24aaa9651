"""Keyformer: keep the tokens of most attention under noise and temperature, and the newest.

Adnan et al., Keyformer: KV Cache Reduction through Key Tokens Selection for Efficient Generative
Inference (MLSys 2024, arXiv 2403.09054, equation 9 and Algorithm 1); official code
d-matrix-ai/keyformer-llm at f327831.

As in the official code, noise is fresh for each head, query and key; the printed algorithm draws it
once. Differences from the default files of that code, `models/gptj-keyformer-lib/modeling_gptj.py`,
the one of Cerebras-GPT and `models/mpt-keyformer-lib/attention.py`:

- The token that leaves the recent window competes, as printed; these files lose it for good.
- The memory of an evicted token is freed; these files only mask it.

Differences from the official code as a whole:

- A beam keeps its own tokens; the code sums scores over batch and beams.
- Rows of a batch share their noise, so that a row comes out as it does alone.
- The heads of a group (grouped queries), which the paper leaves to future work, share their sum, as
  in H2O.

On random tensors all three default files keep the same tokens at every step under the same noise,
with scores within 1e-6, once the lost token is put back; as they are, 95 % of the sets of key
tokens differ, and no generated token is in theirs (`benchmarks/official/keyformer.py`).
"""

from functools import partial

import torch
from transformers import Cache

from ..errors import UserError
from ..kernels.attention.noise import Perturbation, stream_of
from ..validation import check_flag, check_whole
from .layer import PrunedLayer
from .policy import CacheBudget, EvictionPolicy


class KeyformerCache(Cache):
    """A cache that scores a token by the attention it gets from perturbed logits.

    `f[j] = sum over t >= j of softmax_j((x_t + zeta) / tau_t)`, with x the logits and zeta drawn
    from Gumbel(0, 1). The attention itself is the ordinary softmax.

    Args:
        budget: as for `H2OCache`; the official script has 0.6.
        recent: as for `H2OCache`; the official script has 0.3.
        tau: temperature of the prompt, and the one reached after `new_tokens`, where it stays.
        new_tokens: T, how many tokens will be generated. It is needed unless both temperatures are
            equal, so it is needed by default.
        noise: False for zeta = 0.
        seed: seed of the noise.

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
            stream = stream_of(seed, layer) if noise else None
            return Perturbation(temperature.after(steps), queries, stream)

        policy = EvictionPolicy(CacheBudget(budget, recent), mass=True, perturb=perturb)
        super().__init__(layer_class_to_replicate=partial(PrunedLayer, policy))


class Temperature:
    """`tau_init + t (tau_end - tau_init) / T` after t generated tokens, and tau_end beyond T.

    Args:
        tau: tau_init and tau_end.
        new_tokens: T; it may be None where both temperatures are equal.

    Raises:
        UserError: impossible temperatures, or T missing or below 1.
    """

    def __init__(self, tau: tuple[float, float], new_tokens: int | None):
        try:
            self.init, self.end = (float(value) for value in tau)
        except (TypeError, ValueError):
            raise UserError(
                f"tau {tau!r} is not allowed; use two temperatures, e.g. (1.0, 2.0)"
            ) from None
        low, high = sorted((self.init, self.end))
        if not 0.01 <= low <= high < float("inf"):
            raise UserError(
                f"tau {tau!r} is not allowed; use two temperatures of at least 0.01, e.g. "
                "(1.0, 2.0)"
            )
        if new_tokens is None and self.init != self.end:
            raise UserError(
                f"tau {tau!r} needs new_tokens, the number of tokens to generate, e.g. "
                "new_tokens=64"
            )
        if new_tokens is None:
            new_tokens = 1
        check_whole("new_tokens", new_tokens, 1, example=64)
        self.new_tokens = new_tokens

    def after(self, steps: torch.Tensor) -> torch.Tensor:
        """Temperatures after so many generated tokens, 0 for the prompt: float32, same shape."""
        progress = (steps.float() / self.new_tokens).clamp(max=1)
        return self.init + progress * (self.end - self.init)
