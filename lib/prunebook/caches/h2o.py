"""H2O: keep the heavy hitters, the tokens that attention has looked at most, and the newest.

Zhang et al., H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models
(NeurIPS 2023, arXiv 2306.14048, section 4 and figure 3); official code FMInference/H2O at ac75c2a.

Differences from the printed Algorithm 1, which scores with the current step alone and has no recent
window:

- Scores accumulate and the newest tokens stay, as in the paper's text and code.

The official code, in `h2o_hf/`, has several implementations, which differ from one another. Where
this one differs from each:

- A choice knows the queries that were read so far; `utils_lm_eval/modify_llama.py` counts later
  queries, too.
- A weight is a softmax over the tokens that are held; `utils_lm_eval/modify_opt.py` and
  `modify_gptneox.py` take it over the whole cache.
- The memory of an evicted token is freed, and the token that leaves the recent window competes at
  once; `utils_hh/modify_llama.py` masks tokens, and hides that one for a step.
- Each row of a batch keeps a set of its own, and the heads of a group (grouped queries), which the
  paper's models do not have, share their sum; `utils_real_drop/modify_llama.py` sums scores over
  the batch and fails with grouped queries.

On tiny random models `utils_real_drop` keeps the same tokens at every step, and so does `utils_hh`
once the hidden token is shown, both with scores within 1e-6; as they are, 51 % of the sets of heavy
hitters of `utils_hh` differ, 97 % of those of `utils_lm_eval/modify_opt.py` and all of those of its
`modify_llama.py` (`benchmarks/official/h2o.py`).
"""

from functools import partial

from transformers import Cache

from ..validation import check_flag
from .layer import PrunedLayer
from .policy import CacheBudget, EvictionPolicy


class H2OCache(Cache):
    """A cache that scores a token by the attention it got.

    `A[j] = sum over t >= j of softmax_j(q_t k / sqrt(d))`.

    Args:
        budget: tokens that a KV head keeps: a fraction in (0, 1] of the prompt, 1.0 for all tokens;
            or a whole number. The prompt is what the first forward pass reads; with
            `prefill_chunk_size` it would be a chunk.
        recent: how much of the budget is for the newest tokens: a fraction in [0, 1] or a whole
            number. The paper gives them half.
        average: divide a score by the number of queries that saw the token, which the paper found
            worse (section B.2).

    Raises:
        UserError: an impossible option; in use, a model whose attention cannot be pruned.
    """

    def __init__(
        self, budget: float | int = 0.2, recent: float | int = 0.5, *, average: bool = False
    ):
        check_flag("average", average)
        policy = EvictionPolicy(CacheBudget(budget, recent), mass=True, average=average)
        super().__init__(layer_class_to_replicate=partial(PrunedLayer, policy))
