"""OWL with Wanda at 70 %, luuyin/OWL: `prune_wanda_outlier` as it is, with our tokens.

`official variant` rounds down in every row as that code does; `exact` meets the global count.
"""

import re

import torch

from prunebook.methods import OWL
from prunebook.methods.owl.outliers import outliers

from .common import adapt, arguments, loader, official_module

REPOSITORY = "https://github.com/luuyin/OWL"
COMMIT = "dddb7a4"
SPARSITY = 0.7
MULTIPLIER = 5
SPREAD = 0.08
OURS = {
    "official variant": OWL(sparsity=SPARSITY, exact_count=False),
    "exact": OWL(sparsity=SPARSITY),
    "fast": OWL(sparsity=SPARSITY, precision="fast"),
}


def official(model, tokens: torch.Tensor, folder: str) -> dict:
    """The repository's `prune_wanda_outlier`, in place; returns the outlier distribution that it
    used."""
    prune = official_module(folder, "lib.prune_all")
    prune.get_loaders = loader(tokens)
    adapt(model, tokens.shape[1])
    found = []
    check = prune.check_outlier_mean
    prune.check_outlier_mean = lambda scores, multiplier: (
        found.append(check(scores, multiplier)) or found[-1]
    )
    options = arguments(
        nsamples=len(tokens),
        seed=0,
        sparsity_ratio=SPARSITY,
        Hyper_m=MULTIPLIER,
        Lamda=SPREAD,
        use_variant=False,
        model="llama",
    )
    prune.prune_wanda_outlier(options, model, None, torch.device("cpu"))
    return {"outliers": found}


def compare(model, tokens: torch.Tensor, folder: str, told: dict) -> dict:
    """The largest differences of the outlier distribution (in percent) and of the block sparsities.

    Args:
        model: dense.
        told: what `official` returned.
    """
    distribution = outliers(model, tokens, MULTIPLIER)
    by_block = {
        int(re.search(r"\.(\d+)\.", name)[1]): (name, value) for name, value in distribution.items()
    }
    rates = OURS["exact"].rates(model, distribution)
    theirs = torch.tensor(told["outliers"], dtype=torch.float64)
    kept = (theirs - theirs.min()) / (theirs.max() - theirs.min()) * 2 * SPREAD
    their_rates = 1 - (kept - kept.mean() + 1 - SPARSITY)
    ours = torch.tensor([by_block[i][1] for i in range(len(theirs))], dtype=torch.float64)
    our_rates = torch.tensor(
        [rates[by_block[i][0]] for i in range(len(theirs))], dtype=torch.float64
    )
    return {
        "outliers_difference": (ours - theirs).abs().max().item(),
        "sparsities_difference": (our_rates - their_rates).abs().max().item(),
    }
