"""The LLM Surgeon, Qualcomm-AI-research/llm-surgeon: its curvature and `sparsify_model` as they
are, with our tokens.

Rows and columns at 20 % in two shots, one threshold, damping 0.1, `--use_iad`. `main` is left out:
it loads models and text, logs to tensorboard and evaluates after each shot, which would count
against its time. The loop over shots is ours, the module `pynvml`, which only its logging needs, is
empty, and the device is the CPU. Entries would take that code hours on two cores, as it multiplies
whole matrices for each group.
"""

import sys
import types

import torch

from prunebook.methods import LLMSurgeon

from .common import official_module

REPOSITORY = "https://github.com/Qualcomm-AI-research/llm-surgeon"
COMMIT = "7267344"
SPARSITY = 0.2  # this damping because the text is short
SHOTS = 2
DAMPING = 0.1
SAMPLES = 16
LENGTH = 512
# rows, and columns, as one group each, their updates added as the official code does
_TOGETHER = 10**6
_ROWS_COLUMNS = {
    "sparsity": SPARSITY,
    "structure": "rows+columns",
    "shots": SHOTS,
    "damping": DAMPING,
}
OURS = {
    "official variant": LLMSurgeon(**_ROWS_COLUMNS, max_correlate=_TOGETHER),
    "exact": LLMSurgeon(**_ROWS_COLUMNS),
    "fast": LLMSurgeon(**_ROWS_COLUMNS, precision="fast"),
}


def _modules(folder: str):
    sys.modules.setdefault("pynvml", types.ModuleType("pynvml"))
    return official_module(folder, "curvature"), official_module(folder, "sparsify")


def official(
    model, tokens: torch.Tensor, folder: str, shots: int = SHOTS, sparsity: float = SPARSITY
) -> None:
    """The repository's shots, in place."""
    curvature, sparsify = _modules(folder)
    batches = [types.SimpleNamespace(return_tensors=[row.tolist()]) for row in tokens]
    for shot in range(1, shots + 1):
        with torch.enable_grad():
            kfac = curvature.KFAC(
                model,
                batches,
                0,
                1,
                use_iad=True,
                nsamples=len(tokens),
                dev="cpu",
                curvature_dev="cpu",
            )
        sparsify.sparsify_model(
            model,
            shot * sparsity / shots,
            ["row", "column"],
            kfac,
            False,
            1.0,
            0,
            DAMPING,
            DAMPING,
            False,
            False,
            False,
            False,
            False,
            False,
        )
        kfac.free()
    model.requires_grad_(False)
