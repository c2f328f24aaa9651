"""Wanda, locuslab/wanda: `prune_wanda` as it is, with our tokens."""

import torch

from prunebook.criteria.wanda import wanda_score
from prunebook.methods import Wanda
from prunebook.passes.statistics import InputNorm
from prunebook.sparsity.patterns import Unstructured, keep_mask

from .common import adapt, arguments, linears_with_inputs, loader, official_module

REPOSITORY = "https://github.com/locuslab/wanda"
COMMIT = "8e8fc87"
SPARSITY = 0.5
OURS = {"exact": Wanda(sparsity=SPARSITY), "fast": Wanda(sparsity=SPARSITY, precision="fast")}


def official(model, tokens: torch.Tensor, folder: str) -> None:
    """The repository's `prune_wanda`, in place."""
    prune = official_module(folder, "lib.prune")
    prune.get_loaders = loader(tokens)
    adapt(model, tokens.shape[1])
    options = arguments(nsamples=len(tokens), seed=0, sparsity_ratio=SPARSITY, use_variant=False)
    prune.prune_wanda(options, model, None, torch.device("cpu"))


def same_inputs(model, tokens: torch.Tensor, folder: str) -> list[dict]:
    """Mask bits that differ in single linears, both sides given the same weight and inputs."""
    wrapper = official_module(folder, "lib.layerwrapper").WrappedGPT
    rows = []
    for name, linear, inputs in linears_with_inputs(model, tokens):
        weight = linear.weight.data
        wrapped = wrapper(linear)
        norm = InputNorm(weight.shape[1], weight.device)
        for one in inputs:
            wrapped.add_batch(one, None)
            norm.update(one)
        score = weight.abs() * wrapped.scaler_row.sqrt()
        order = score.sort(dim=-1, stable=True).indices[:, : int(weight.shape[1] * SPARSITY)]
        theirs = torch.ones_like(weight, dtype=torch.bool).scatter_(1, order, False)
        ours = keep_mask(wanda_score(weight, norm.norm()), Unstructured(SPARSITY))
        rows.append(
            {
                "linear": name,
                "weights": weight.numel(),
                "bits_different": int((theirs != ours).sum()),
            }
        )
    return rows
