"""H2O: keep the heavy hitters, the tokens that attention has looked at most, and the newest.

Zhang et al., H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models
(NeurIPS 2023, arXiv 2306.14048, section 4 and figure 3); official code FMInference/H2O at ac75c2a.

Differences from the printed Algorithm 1, which scores with the current step alone and has no recent
window: as in the paper's text and code, scores accumulate and the newest tokens stay. Differences
from the official code: weights are softmaxes over the tokens that are left (and of no later query,
which its LLaMA harness counts, too), rows of a batch keep sets of their own, the token that leaves
the window competes at once, and what is evicted is freed. The heads of a group (grouped queries),
which the paper's models do not have, share their sum.
"""

from functools import partial

from transformers import Cache

from ..validation import check_flag
from .layer import PrunedLayer
from .policy import CacheBudget, EvictionPolicy


class H2OCache(Cache):
    """A token's score is the attention it got: `A[j] = sum over t >= j of softmax_j(q_t k /
    sqrt(d))`.

    Args:
        budget: tokens a KV head keeps: a fraction in (0, 1] of the prompt, 1.0 for all tokens; or a
            whole number. The prompt is what the first forward pass reads; with `prefill_chunk_size`
            it would be a chunk.
        recent: of the budget, the newest tokens: a fraction in [0, 1] or a whole number. The paper
            halves.
        average: divide a score by the number of queries that saw the token, which the paper found
            worse (section B.2).

    Raises:
        UserError: an impossible option; in use, a model whose attention cannot be pruned.
    """

    def __init__(
        self, budget: float | int = 0.2, recent: float | int = 0.5, *, average: bool = False
    ):
        check_flag("average", average)
        plan = EvictionPolicy(CacheBudget(budget, recent), mass=True, average=average)
        super().__init__(layer_class_to_replicate=partial(PrunedLayer, plan))
