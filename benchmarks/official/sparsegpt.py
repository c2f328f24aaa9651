"""SparseGPT, IST-DASLab/sparsegpt: `llama_sequential` as it is, with our tokens.

It is asked for half a weight less than the target, so that its `<=` threshold removes the exact
count.
"""

import unittest.mock

import torch

from prunebook.kernels.sparsegpt_block import sparsegpt_block_reference
from prunebook.methods import SparseGPT
from prunebook.methods.sparsegpt.column_sweep import sparsegpt_update
from prunebook.passes.statistics import Hessian
from prunebook.sparsity.patterns import Unstructured

from .common import adapt, arguments, in_float64, linears_with_inputs, official_module

REPOSITORY = "https://github.com/IST-DASLab/sparsegpt"
COMMIT = "147d215"
SPARSITY = 0.5
OURS = {
    "exact": SparseGPT(sparsity=SPARSITY),
    "fast": SparseGPT(sparsity=SPARSITY, precision="fast"),
}
# Half a weight of the largest block below the target: floor(n * s) is one less, and `<=` removes
# one more.
_ASKED = SPARSITY - 0.5 / (1536 * 128)


def official(model, tokens: torch.Tensor, folder: str) -> None:
    """The repository's `llama_sequential`, in place."""
    llama = official_module(folder, "llama")
    adapt(model, tokens.shape[1])
    llama.args = arguments(
        nsamples=len(tokens),
        true_sequential=False,
        minlayer=-1,
        maxlayer=1000,
        prune_only="",
        invert=False,
        wbits=16,
        sparsity=_ASKED,
        prunen=0,
        prunem=0,
        percdamp=0.01,
        blocksize=128,
    )
    llama.llama_sequential(model, [(row[None], None) for row in tokens], torch.device("cpu"))


def same_inputs(model, tokens: torch.Tensor, folder: str) -> list[dict]:
    """Single linears, both sides given the same weight and inputs: mask bits and relative
    difference of weights; once as it is, once in float64 with weights that have no ties. The
    embedded weights were 4-bit numbers: equal ones tie, which the two threshold rules resolve
    differently, and float32 rounding decides near ties."""
    solver = official_module(folder, "sparsegpt").SparseGPT
    torch.cuda.synchronize = lambda *_: None
    rows = []
    for name, linear, inputs in linears_with_inputs(model, tokens):
        noise = torch.randn(linear.weight.shape, generator=torch.Generator().manual_seed(0))
        rows.append(
            {
                "linear": name,
                "weights": linear.weight.numel(),
                **_both(solver, linear, inputs),
                "float64_no_ties": _both_in_float64(solver, linear, inputs, 1 + 1e-4 * noise),
            }
        )
    return rows


def _both_in_float64(solver, linear, inputs: torch.Tensor, factor: torch.Tensor) -> dict:
    """`_both` in float64, which the kernel refuses and its reference takes."""
    with unittest.mock.patch(
        "prunebook.methods.sparsegpt.column_sweep.sparsegpt_block", sparsegpt_block_reference
    ):
        return in_float64(_both, solver, linear, inputs, factor)


def _both(solver, linear, inputs: torch.Tensor, factor: torch.Tensor | float = 1.0) -> dict:
    """The official solver and ours on `factor * weight`; the linear is left as it was."""
    original = linear.weight.data
    weight = original.to(torch.get_default_dtype()) * factor
    linear.weight.data = weight.clone()
    theirs = solver(linear)
    hessian = Hessian(weight.shape[1], weight.device)
    for one in inputs:
        theirs.add_batch(one, None)
        hessian.update(one)
    theirs.fasterprune(_ASKED, percdamp=0.01, blocksize=128)
    their_weight, linear.weight.data = linear.weight.data, original
    ours, _ = sparsegpt_update(weight, hessian.matrix(), Unstructured(SPARSITY, "layer"))
    return {
        "bits_different": int(((ours == 0) != (their_weight == 0)).sum()),
        "relative_difference": ((ours - their_weight).norm() / their_weight.norm()).item(),
    }
