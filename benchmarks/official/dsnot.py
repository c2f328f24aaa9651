"""DSnoT from Wanda at 60 %, zyxxmu/DSnoT: `prune_DSnoT` as it is, with our tokens.

`official variant` leaves out the MLP, averages variances within sequences and goes on when a queue
is empty, as that code does; `exact` and `fast` refine all linears with pooled variances and stop. A
row's swaps hang on the last digits of its inputs: see `compare`.
"""

import copy

import torch

import prunebook as pb
from prunebook.methods import DSnoT
from prunebook.methods.dsnot.moments import InputMoments, expected_change
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.passes.precision import matmul_precision

from .common import adapt, arguments, linears_with_inputs, loader, of_one_layer, official_module

REPOSITORY = "https://github.com/zyxxmu/DSnoT"
COMMIT = "4c029df"
SPARSITY = 0.6
OURS = {
    "official variant": DSnoT(sparsity=SPARSITY, as_released=("variance", "queues", "skip-mlp")),
    "exact": DSnoT(sparsity=SPARSITY),
    "fast": DSnoT(sparsity=SPARSITY, precision="fast"),
}
# What is compared on single linears: our options and those of the repository.
_CASES = {
    "stopping": ({"sparsity": SPARSITY, "as_released": ("variance",)}, {}),
    "unstructured": ({"sparsity": SPARSITY, "as_released": ("variance", "queues")}, {}),
    "magnitude_start": (
        {
            "sparsity": SPARSITY,
            "as_released": ("variance", "queues"),
            "criterion": "magnitude",
        },
        {"initial_method": "magnitude"},
    ),
    "without_overshoot": (
        {"sparsity": SPARSITY, "as_released": ("variance", "queues"), "overshoot": False},
        {"without_same_sign": False},
    ),
    "2:4": ({"pattern": "2:4", "as_released": ("variance",)}, {"n_m": (2, 4)}),
    "4:8": ({"pattern": "4:8", "as_released": ("variance",)}, {"n_m": (4, 8)}),
}


def _options(samples: int, **changes):
    defaults = {
        "nsamples": samples,
        "seed": 0,
        "sparsity_ratio": SPARSITY,
        "initial_method": "wanda",
        "max_cycle_time": 50,
        "update_threshold": 0.1,
        "pow_of_var_regrowing": 1,
        "skip_layer": "mlp",
        "skip_sub_layer": "no_skip",
        "without_same_sign": True,
        "without_DSnoT": False,
        "get_time_overhead": False,
    }
    return arguments(**defaults | changes)


def official(model, tokens: torch.Tensor, folder: str) -> None:
    """The repository's `prune_DSnoT`, unstructured, in place."""
    prune = official_module(folder, "lib.prune")
    prune.get_loaders = loader(tokens)
    adapt(model, tokens.shape[1])
    prune.prune_DSnoT(_options(len(tokens)), model, None, torch.device("cpu"))


def compare(model, tokens: torch.Tensor, folder: str, told: None) -> dict:
    """Mask bits of the whole model that differ, and perplexities on the calibration tokens: the
    official code beside our official variant, both with oneDNN's float32 products, as ours always;
    and, for what rounding does, our official variant with and without a change of the first norm's
    weights by 1e-7 of themselves."""
    tokens = tokens[:16]

    def ours(copied):
        pb.prune(copied, OURS["official variant"], calibration=tokens)

    def theirs(copied):
        with matmul_precision(copied.device, "exact"):
            official(copied, tokens, folder)

    def ours_disturbed(copied):
        norm = copied.model.layers[0].input_layernorm.weight.data
        norm *= 1 + 1e-7 * torch.randn(norm.shape, generator=torch.Generator().manual_seed(0))
        ours(copied)

    masks = []
    perplexities = []
    callable_as_usual = copy.deepcopy(model)
    for prune in (ours, theirs, ours_disturbed):
        copied = copy.deepcopy(model)
        prune(copied)
        weights = {
            name: weight_of(x) for block in find_blocks(copied) for name, x in block.linears.items()
        }
        for name, weight in weights.items():
            weight_of(callable_as_usual.get_submodule(name)).copy_(weight)
        masks.append(torch.cat([weight.ne(0).flatten() for weight in weights.values()]))
        perplexities.append(pb.perplexity(callable_as_usual, tokens, precision="exact"))
    equal = [int((mask != masks[0]).sum()) for mask in masks[1:]]
    return {
        "samples": len(tokens),
        "weights": len(masks[0]),
        "perplexities": perplexities,
        "mask_bits_different_with_the_same_products": equal[0],
        "mask_bits_different_after_a_change_of_1e-7": equal[1],
    }


def same_inputs(model, tokens: torch.Tensor, folder: str) -> list[dict]:
    """Single linears, both sides given the same weight and inputs: in each case mask bits that
    differ; those of them in rows where a queue is shorter than the cycles, where `stopping` stops,
    and the number of such rows; and rows that keep other counts."""
    prune = official_module(folder, "lib.prune")
    torch.cuda.empty_cache = lambda: None
    rows = []
    for name, linear, inputs in linears_with_inputs(model, tokens):
        weight = linear.weight.data
        statistic = InputMoments(weight.shape[1], weight.device, "within")
        for one in inputs:
            statistic.update(one)
        live = weight != 0  # a weight that was zero before says nothing of the mask
        row = {"linear": name, "weights": weight.numel()}
        for case, (ours, theirs) in _CASES.items():
            method = DSnoT(**ours)
            start, mask = (
                method.mask(weight, statistic, method.target, refine) for refine in (False, True)
            )
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
    """Rows where not all queues last for all cycles; with n:m only what comes back stands in
    queues."""
    sides = [~start] if "n_m" in theirs else [~start, start]
    queues = [(side & sign).sum(1) for side in sides for sign in (D < 0, D > 0)]
    return torch.stack(queues).amin(0) < _options(0).max_cycle_time


def _official_mask(
    prune, weight: torch.Tensor, inputs: torch.Tensor, n_m=(0, 0), **changes
) -> torch.Tensor:
    """The mask of one weight, from `prune_DSnoT` on a model of one layer whose output is its
    input."""
    layer = torch.nn.Module()
    layer.self_attn = torch.nn.Module()
    layer.self_attn.linear = linear = torch.nn.Linear(*weight.T.shape, bias=False)
    linear.weight.data = weight.clone()
    layer.forward = lambda hidden, **_: (linear(hidden), hidden)[1:]
    model = of_one_layer(prune, layer, inputs, torch.empty_like(inputs))
    prune.prune_DSnoT(_options(len(inputs), **changes), model, None, torch.device("cpu"), *n_m)
    return linear.weight.data != 0
