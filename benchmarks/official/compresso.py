"""Compresso, microsoft/Moonlit: masks, size and constraint of its `L0Module` for a tiny Llama.

Of the module's imports, the configurations of LLaMA and OPT are empty classes here, as the files
that define them need an older transformers; the module reads which class it has and its sizes. The
masked model of those files is not compared: it divides by 4,096 in every norm and masks embeddings.

Ours get the random numbers that the official masks drew. The official size leaves out norms, and
rounds the part of the neurons to half precision: sizes are compared without norms, with that
rounding and without it (calls of `Tensor.half` return the tensor). What differs on purpose has
entries of its own: the start of the neurons' masks, norms in the size, and final masks from one
order for the whole model, in place of the expected number in each block.
"""

import unittest.mock

import torch

from prunebook.methods.compresso.size_budget import SizeBudget
from prunebook.recovery.learned_masks import LearnedMasks
from prunebook.sparsity import hard_concrete
from prunebook.sparsity.lagrangian import Lagrangian
from prunebook.sparsity.structured_masks import mask_shapes

from .common import equal_share, official_module, relative_difference, stand_in, tiny_llama

REPOSITORY = "https://github.com/microsoft/Moonlit"
COMMIT = "348a402"
# our axis -> the official one, in the order of the official script
_TYPES = {"heads": "head", "neurons": "intermediate", "hidden": "hidden"}
_PRUNING_TYPE = "structured_heads+structured_mlp+hidden"
_DROP_RATE = 0.01
_SPARSITY = 0.3
_RAMP = 8


class _LlamaConfig:
    """Stands in for the repository's configuration of LLaMA.

    Args:
        config: the configuration of transformers, whose sizes it takes.
    """

    def __init__(self, config):
        self.hidden_size = config.hidden_size
        self.intermediate_size = config.intermediate_size
        self.num_attention_heads = config.num_attention_heads
        self.num_hidden_layers = config.num_hidden_layers
        self.vocab_size = config.vocab_size


class _OPTConfig:
    """Stands in for the repository's configuration of OPT."""


def parity(folder: str) -> dict:
    """Masks, sizes, constraints and final masks of the official module beside ours.

    Args:
        folder: a checkout of the repository.
    """
    compresso = f"{folder}/Compresso"
    stand_in("models", __path__=[f"{compresso}/models"])
    stand_in("models.modeling_llama", LlamaConfig=_LlamaConfig)
    stand_in("models.modelling_opt", OPTConfig=_OPTConfig)
    official = official_module(compresso, "models.l0_module")
    model = tiny_llama(num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=8)
    module = official.L0Module(
        _LlamaConfig(model.config),
        droprate_init=_DROP_RATE,
        lagrangian_warmup=_RAMP,
        target_sparsity=_SPARSITY,
        pruning_type=_PRUNING_TYPE,
    )
    shapes = mask_shapes(model)
    masks = LearnedMasks({axis: shapes[axis] for axis in _TYPES}, seed=0)
    found = {"start_log_alpha_difference": _start_differences(module, masks)}
    generator = torch.Generator().manual_seed(1)
    for axis, name in _TYPES.items():
        # Some are beyond the limits of 4.6.
        value = 1 + 2 * torch.randn(shapes[axis], generator=generator)
        module.z_logas[name].copy_(value)
        masks.log_alpha[axis].copy_(value)
    module.constrain_parameters()
    masks.limit()
    with_norms = SizeBudget(model, _SPARSITY)
    budget = SizeBudget(model, _SPARSITY)
    budget.total -= budget.rest
    budget.rest = 0
    return found | {
        "masks": _compare_masks(module, masks),
        "constraint": [
            _compare_constraint(module, masks, budget, step) for step in (0, _RAMP // 2, 2 * _RAMP)
        ],
        "removed_difference_with_norms": relative_difference(
            with_norms.removed(masks.kept()), budget.removed(masks.kept())
        ),
        "final_masks": _compare_final(module, masks, budget, with_norms),
    }


def _start_differences(module, masks: LearnedMasks) -> dict[str, float]:
    """By axis, how far apart the mean `log_alpha` are before the first step, after the limits."""
    module.constrain_parameters()
    masks.limit()
    return {
        axis: (masks.log_alpha[axis].mean() - module.z_logas[name].mean()).abs().item()
        for axis, name in _TYPES.items()
    }


def _compare_masks(module, masks: LearnedMasks) -> dict:
    """Random masks at the same random numbers, their gradients, and chances to stay."""
    drawn = []
    original = module.get_eps

    def drawing(size):
        drawn.append(original(size))
        return drawn[-1]

    with torch.enable_grad():
        with unittest.mock.patch.object(module, "get_eps", drawing):
            theirs = module(training=True)
        # The official masks draw in the order in which the module has them.
        numbers = dict(zip(module.types, drawn, strict=True))
        in_turn = [numbers[_TYPES[axis]] for axis in masks.log_alpha]
        with unittest.mock.patch.object(torch, "rand", side_effect=in_turn):
            ours = masks.sample()
    rows = []
    equal = []
    for axis, name in _TYPES.items():
        with torch.enable_grad():
            official = theirs[f"{name}_z"].view(ours[axis].shape)
        log_alpha = masks.log_alpha[axis]
        official_log_alpha = module.z_logas[name]
        weights = torch.linspace(-1, 1, official.numel()).view(official.shape)
        (gradient,) = torch.autograd.grad(ours[axis], log_alpha, weights)
        (official_gradient,) = torch.autograd.grad(official, official_log_alpha, weights)
        chance = module.cdf_qz(0, official_log_alpha)
        equal += [equal_share(ours[axis] == edge, official == edge) for edge in (0, 1)]
        rows.append(
            {
                "random": relative_difference(ours[axis], official),
                "random_gradient": relative_difference(gradient, official_gradient),
                "chance_of_zero": relative_difference(
                    hard_concrete.probability_of_zero(log_alpha), chance
                ),
            }
        )
    largest = {f"{key}_difference": max(row[key] for row in rows) for key in rows[0]}
    return largest | {"least_zeros_and_ones_equal": min(equal)}


def _compare_constraint(module, masks: LearnedMasks, budget: SizeBudget, step: int) -> dict:
    """Expected size, terms of the constraint and their gradients at one step.

    Args:
        module: the official module.
        masks: ours.
        budget: ours, without norms.
        step: number of the step, from 0.
    """
    constraint = Lagrangian({"size": _SPARSITY}, _RAMP)
    multipliers = constraint.multipliers["size"]
    multipliers.copy_(torch.tensor([0.7, 1.9]))
    module.lambda_1.copy_(multipliers[0])
    module.lambda_2.copy_(multipliers[1])
    parameters = [masks.log_alpha[axis] for axis in _TYPES]
    official_parameters = [module.z_logas[name] for name in _TYPES.values()]
    with torch.enable_grad():
        removed = budget.removed(masks.kept())
        term = constraint({"size": removed[None]}, step)
        gradients = torch.autograd.grad(term, [*parameters, multipliers])
    row = {"step": step}
    in_full = unittest.mock.patch.object(torch.Tensor, "half", lambda self: self)
    as_it_is = unittest.mock.patch.object(torch.Tensor, "half", torch.Tensor.half)
    for name, precision in (("", in_full), ("_to_half_precision", as_it_is)):
        with torch.enable_grad(), precision:
            official, official_removed, target = module.lagrangian_regularization(step)
            *theirs, first, second = torch.autograd.grad(
                official, [*official_parameters, module.lambda_1, module.lambda_2]
            )
        row |= {
            f"removed_difference{name}": relative_difference(removed, official_removed),
            f"constraint_difference{name}": relative_difference(term, official),
            f"log_alpha_gradient_difference{name}": max(
                relative_difference(ours, other)
                for ours, other in zip(gradients[:-1], theirs, strict=True)
            ),
            f"multiplier_gradient_difference{name}": relative_difference(
                gradients[-1], torch.stack([first, second])
            ),
        }
    row["targets_equal"] = constraint.target("size", step) == target
    return row


def _compare_final(module, masks: LearnedMasks, budget: SizeBudget, with_norms: SizeBudget) -> dict:
    """The masks of the official evaluation, and those that ours cut.

    Args:
        module: the official module.
        masks: ours.
        budget: ours, without norms.
        with_norms: ours, as the method has it.
    """
    theirs = module(training=False)
    binary = {}
    equal = []
    differences = []
    for axis, name in _TYPES.items():
        log_alpha = masks.log_alpha[axis]
        official = theirs[f"{name}_z"].view(log_alpha.shape)
        binary[axis] = official > 0
        soft = hard_concrete.without_noise(log_alpha)[official > 0]
        differences.append(relative_difference(soft, official[official > 0]))
        # The expected number of zeros in each block, rounded, by the same rule for the lowest.
        rows = log_alpha.view(-1, log_alpha.shape[-1])
        for row, mask in zip(rows, binary[axis].view(rows.shape), strict=True):
            zeros = round(row.numel() - hard_concrete.expected_size(row).item())
            equal.append(equal_share(hard_concrete.keep(row, row.numel() - zeros), mask))
    sizes = module.calculate_model_size(theirs)
    ours = with_norms.choose(masks.trained())
    return {
        "least_kept_equal_at_expected_numbers": min(equal),
        "soft_masks_difference": max(differences),
        "removed_of_official_masks": sizes["pruned_model_sparsity"],
        "removed_of_official_masks_difference": relative_difference(
            budget.removed(binary), torch.tensor(sizes["pruned_model_sparsity"])
        ),
        "removed_of_our_masks": with_norms.removed(ours).item(),
        "our_masks_equal": {axis: equal_share(ours[axis], binary[axis]) for axis in _TYPES},
    }
