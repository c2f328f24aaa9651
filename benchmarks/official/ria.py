"""RIA, biomedical-cybernetics/Relative-importance-and-activation-pruning: `prune_ria` with our
tokens.

The code names CUDA devices; here those calls stay on the CPU (`Tensor.cuda`, and `cuda:7` in the
text of the assignment step). It is asked for half a weight less than the target, so that its `<=`
threshold removes the exact count where no scores tie; ties at the threshold all go there, the
lowest index first here.
"""

import sys
import time
import types
import unittest.mock
from pathlib import Path

import torch

from prunebook.criteria.ria import ria_score
from prunebook.methods import RIA
from prunebook.methods.ria.permutation import allocate_channels, keep_mask_permuted, retained
from prunebook.passes.statistics import InputNorm
from prunebook.sparsity.patterns import NofM, Unstructured, keep_mask

from .common import adapt, arguments, linears_with_inputs, loader, of_one_layer, official_module

REPOSITORY = "https://github.com/biomedical-cybernetics/Relative-importance-and-activation-pruning"
COMMIT = "7bc55b0"
SPARSITY = 0.5
OURS = {"exact": RIA(sparsity=SPARSITY), "fast": RIA(sparsity=SPARSITY, precision="fast")}
_PATTERN = NofM(2, 4)


def _module(folder: str):
    """The repository's `lib.prune` on the CPU: its text with the one device name replaced."""
    official_module(folder, "lib.layerwrapper")
    path = Path(folder) / "lib" / "prune.py"
    module = types.ModuleType("lib.prune")
    module.__package__ = "lib"
    sys.modules["lib.prune"] = module
    exec(compile(path.read_text().replace('"cuda:7"', '"cpu"'), path, "exec"), module.__dict__)
    return module


def _options(samples: int, length: int, **changes):
    defaults = {
        "nsamples": samples,
        "seed": 0,
        "seqlen": length,
        "calib_dataset": "c4",
        "model": "llama",
        "a": 0.5,
        "prune_method": "ria",
        "sparsity_ratio": SPARSITY,
        "per_outneuron": False,
        "reconstruction": False,
        "gptq": False,
        "reallocation": False,
        "lsa": False,
        "fast": False,
        "importance_score": "sum",
        "semi_sparse_acc": False,
    }
    return arguments(**defaults | changes)


def official(model, tokens: torch.Tensor, folder: str) -> None:
    """The repository's `prune_ria`, unstructured, in place."""
    prune = _module(folder)
    prune.get_loaders = loader(tokens)
    adapt(model, tokens.shape[1])
    # of the largest matrix: floor is one less, and `<=` removes one more
    asked = SPARSITY - 0.5 / (576 * 1536)
    with unittest.mock.patch.object(torch.Tensor, "cuda", lambda self: self):
        prune.prune_ria(
            _options(len(tokens), tokens.shape[1], sparsity_ratio=asked),
            model,
            None,
            torch.device("cpu"),
        )


def same_inputs(model, tokens: torch.Tensor, folder: str) -> list[dict]:
    """Single linears, both sides given the same weight and inputs: mask bits that differ,
    unstructured, and in the first block at 2:4 after the heuristic and after the assignment, whose
    wall time is told; Phi of both."""
    prune = _module(folder)
    rows = []
    for name, linear, inputs in linears_with_inputs(model, tokens):
        weight = linear.weight.data
        norm = InputNorm(linear.weight.shape[1], linear.weight.device)
        wrapped = prune.WrappedGPT(_options(len(tokens), tokens.shape[1]), linear, layer_name=name)
        for one in inputs:
            wrapped.add_batch(one, one @ weight.T)
            norm.update(one)
        score = ria_score(weight, norm.norm()).dense()
        size = weight.abs()
        theirs = (
            size / size.sum(0) + size / size.sum(1, keepdim=True)
        ) * wrapped.scaler_row.sqrt() ** 0.5
        threshold = theirs.flatten().sort().values[int(theirs.numel() * SPARSITY) - 1]
        keep = keep_mask(score, Unstructured(SPARSITY, "layer"))
        row = {
            "linear": name,
            "weights": weight.numel(),
            "scores_equal": torch.equal(score, theirs),
            "bits_different": int(((theirs > threshold) != keep).sum()),
            "tied_at_the_threshold": int((theirs == threshold).sum()),
        }
        if ".layers.0." in name:
            row |= _permuted(prune, linear, inputs, score)
        rows.append(row)
    return rows


def _permuted(prune, linear, inputs: torch.Tensor, score: torch.Tensor) -> dict:
    """2:4 with the official permutation of one linear, through a model of one layer that
    `prune_ria` can walk."""
    found = {}
    order = allocate_channels(score.sum(0), _PATTERN.m)
    heuristic = torch.empty_like(score, dtype=torch.bool)
    heuristic[:, order] = keep_mask(score[:, order], _PATTERN)
    for label, assign in (("heuristic", False), ("assignment", True)):
        layer = torch.nn.Module()
        layer.linear = torch.nn.Linear(linear.in_features, linear.out_features, bias=False)
        layer.linear.weight.data = linear.weight.data.clone()
        layer.forward = lambda hidden, layer=layer, **_: (layer.linear(hidden),)
        model = of_one_layer(prune, layer, inputs, [None] * len(inputs))
        options = _options(len(inputs), inputs.shape[1], reallocation=True, lsa=assign)
        start = time.perf_counter()
        prune.prune_ria(options, model, None, torch.device("cpu"), prune_n=2, prune_m=4)
        official_seconds = time.perf_counter() - start
        start = time.perf_counter()
        ours = keep_mask_permuted(score, _PATTERN) if assign else heuristic
        theirs = layer.linear.weight.data != 0
        live = linear.weight.data != 0  # a weight that was zero before says nothing of the mask
        found |= {
            f"{label}_bits_different": int(((theirs != ours) & live).sum()),
            f"{label}_retained_official": score[theirs].sum(dtype=torch.float64).item(),
            f"{label}_retained_ours": score[ours].sum(dtype=torch.float64).item(),
        }
        if assign:
            found |= {
                "official_seconds": official_seconds,
                "our_seconds": time.perf_counter() - start,
            }
    return found | {"retained_unpermuted": retained(score, torch.arange(score.shape[1]), _PATTERN)}
