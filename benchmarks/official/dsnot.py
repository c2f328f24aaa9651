"""DSnoT from Wanda at 60 %, zyxxmu/DSnoT: `prune_DSnoT` as it is, with our tokens.

`official variant` leaves out the MLP and averages variances within sequences, as that code does by default; `exact` and
`fast` refine all linears with pooled variances. Masks of later blocks differ, because a row's swaps hang on the last
digits of its inputs: see `compare`, and `same_inputs` for what is the same function.
"""

import copy
import types

import torch

import prunebook as pb
from prunebook.blocks import find_blocks, weight_of
from prunebook.criteria.dsnot import InputMoments, expected_change
from prunebook.methods import DSnoT

from .common import adapt, arguments, linears_with_inputs, loader, official_module

REPOSITORY, COMMIT = "https://github.com/zyxxmu/DSnoT", "4c029df"
SPARSITY = 0.6
OURS = {
    "official variant": DSnoT(sparsity=SPARSITY, variance="within", skip="mlp"),
    "exact": DSnoT(sparsity=SPARSITY),
    "fast": DSnoT(sparsity=SPARSITY, precision="fast"),
}
# What is compared on single linears: our options and those of the repository.
_CASES = {
    "unstructured": ({"sparsity": SPARSITY}, {}),
    "magnitude_start": ({"sparsity": SPARSITY, "start": "magnitude"}, {"initial_method": "magnitude"}),
    "without_overshoot": ({"sparsity": SPARSITY, "overshoot": False}, {"without_same_sign": False}),
    "2:4": ({"pattern": "2:4"}, {"n_m": (2, 4)}),
    "4:8": ({"pattern": "4:8"}, {"n_m": (4, 8)}),
}


def _options(samples: int, **changes):
    defaults = {
        "nsamples": samples, "seed": 0, "sparsity_ratio": SPARSITY, "initial_method": "wanda", "max_cycle_time": 50,
        "update_threshold": 0.1, "pow_of_var_regrowing": 1, "skip_layer": "mlp", "skip_sub_layer": "no_skip",
        "without_same_sign": True, "without_DSnoT": False, "get_time_overhead": False,
    }  # fmt: skip
    return arguments(**defaults | changes)


def official(model, tokens: torch.Tensor, folder: str) -> None:
    """The repository's `prune_DSnoT`, unstructured, in place."""
    prune = official_module(folder, "lib.prune")
    prune.get_loaders = loader(tokens)
    adapt(model, tokens.shape[1])
    prune.prune_DSnoT(_options(len(tokens)), model, None, torch.device("cpu"))


def compare(model, tokens: torch.Tensor, told: None) -> dict:
    """How far rounding carries: our official variant on the model as it is and with the first norm's weights changed by
    1e-7 of themselves, in mask bits that stay equal and in perplexity on the calibration tokens."""
    masks, perplexities = [], []
    for change in (0, 1e-7):
        copied = copy.deepcopy(model)
        norm = copied.model.layers[0].input_layernorm.weight.data
        norm *= 1 + change * torch.randn(norm.shape, generator=torch.Generator().manual_seed(0))
        pb.prune(copied, OURS["official variant"], calibration=tokens)
        masks.append(torch.cat([weight_of(x).ne(0).flatten() for b in find_blocks(copied) for x in b.linears.values()]))
        perplexities.append(pb.perplexity(copied, tokens[:16], precision="exact"))
    equal = (masks[0] == masks[1]).float().mean().item()
    return {"mask_bits_equal_after_a_change_of_1e-7": equal, "perplexities": perplexities}


def same_inputs(model, tokens: torch.Tensor, folder: str) -> list[dict]:
    """Single linears, both sides given the same weight and inputs: in each case mask bits that differ; those of them
    in rows where a queue is shorter than the cycles, which stop here when it is empty, and the number of such rows; and
    rows whose count the official swaps changed."""
    prune = official_module(folder, "lib.prune")
    torch.cuda.empty_cache = lambda: None
    rows = []
    for name, linear, inputs in linears_with_inputs(model, tokens):
        weight = linear.weight.data
        statistic = InputMoments(weight.shape[1], weight.device)
        for one in inputs:
            statistic.update(one)
        live = weight != 0  # a weight that was zero before says nothing of the mask
        row = {"linear": name, "weights": weight.numel()}
        for case, (ours, theirs) in _CASES.items():
            method = DSnoT(**ours, variance="within")
            start, mask = (method.mask(weight, statistic, refine=refine) for refine in (False, True))
            keep = _official_mask(prune, weight, inputs, **theirs)
            short = _short(expected_change(weight, statistic.sums), start, theirs)
            different = ((keep != mask) & live).sum(1)
            row[case] = {
                "bits_different": int(different.sum()),
                "bits_different_in_short_rows": int(different[short].sum()),
                "short_rows": int(short.sum()),
                "rows_of_another_count": int(((keep & live).sum(1) != (mask & live).sum(1)).sum()),
            }
        rows.append(row)
    return rows


def _short(D: torch.Tensor, start: torch.Tensor, theirs: dict) -> torch.Tensor:
    """Rows where not all queues last for all cycles; with n:m only what comes back stands in queues."""
    sides = [~start] if "n_m" in theirs else [~start, start]
    queues = [(side & sign).sum(1) for side in sides for sign in (D < 0, D > 0)]
    return torch.stack(queues).amin(0) < _options(0).max_cycle_time


def _official_mask(prune, weight: torch.Tensor, inputs: torch.Tensor, n_m=(0, 0), **changes) -> torch.Tensor:
    """The mask of one weight, from `prune_DSnoT` on a model of one layer whose output is its input."""
    layer = torch.nn.Module()
    layer.self_attn = torch.nn.Module()
    layer.self_attn.linear = linear = torch.nn.Linear(*weight.T.shape, bias=False)
    linear.weight.data = weight.clone()
    layer.forward = lambda hidden, **_: (linear(hidden), hidden)[1:]
    model = types.SimpleNamespace(
        config=types.SimpleNamespace(use_cache=False), model=types.SimpleNamespace(layers=[layer]), hf_device_map={}
    )
    prune.get_loaders = lambda *_, **__: (None, None)
    prune.prepare_calibration_input = lambda *_: (inputs.clone(), torch.empty_like(inputs), None, None)
    prune.prune_DSnoT(_options(len(inputs), **changes), model, None, torch.device("cpu"), *n_m)
    return linear.weight.data != 0
