"""Sheared LLaMA, princeton-nlp/LLM-Shearing: training step, masks, cut and shares of domains.

The official model is `ComposerMosaicLlama` with the weights of a tiny random Llama, the official
masks are those of its `L0Module`. Composer, einops, omegaconf and the repository's metrics are not
installed: modules with the few names that are read stand in for them, `torch.nn.Module` for
`ComposerModel`, a function for `rearrange`, and one for `find_pruneable_heads_and_indices`, which
transformers no longer has. Attention is that of the repository without flash-attn.

Ours get the random numbers that the official masks drew. Training is compared by one step: loss
with the terms of the constraints, and all gradients; the optimisers are not. The official cut is
given masks of 0 and 1, as ours are; its own have at most 0.996 for what stays.
"""

import contextlib
import copy
import unittest.mock
from collections.abc import Iterator

import torch

from prunebook.methods.sheared_llama.data_mixture import new_shares
from prunebook.passes.backward import next_token_loss
from prunebook.passes.masked import masked
from prunebook.recovery.learned_masks import LearnedMasks, MaskTrainingStep
from prunebook.sparsity import hard_concrete
from prunebook.sparsity.lagrangian import Lagrangian
from prunebook.sparsity.structured_masks import cut, mask_shapes

from .common import (
    equal_share,
    official_module,
    relative_difference,
    tiny_llama,
    tiny_tokens,
)
from .sheared_llama_model import FULL, KEPT, MODULES, RAMP, official_model, official_name, stand_ins

REPOSITORY = "https://github.com/princeton-nlp/LLM-Shearing"
COMMIT = "b87218b"
_PRINTED_BETA = 0.83


def parity(folder: str) -> dict:
    """Steps, masks, cuts and shares of the official functions beside ours.

    Args:
        folder: a checkout of the repository.
    """
    stand_ins()
    modelling = official_module(folder, "llmshearing.models.composer_llama")
    loading = official_module(folder, "llmshearing.callbacks.dynamic_loading_callback")
    model = tiny_llama(num_hidden_layers=FULL["blocks"])
    official = official_model(modelling, model)
    masks, constraint = _our_masks(official.model.l0_module, model)
    return {
        "masks": _compare_masks(official.model.l0_module, masks),
        "steps": [
            _compare_step(official, model, masks, constraint, step)
            for step in (0, RAMP // 2, 2 * RAMP)
        ],
        "deterministic": _compare_deterministic(official.model.l0_module, masks),
        "masked_and_cut": _compare_cut(official, model, masks),
        "shares": _compare_shares(loading),
    }


def _our_masks(module, model) -> tuple[LearnedMasks, Lagrangian]:
    """Ours, with the official `log_alpha` and multipliers."""
    shapes = mask_shapes(model)
    masks = LearnedMasks({axis: shapes[axis] for axis in MODULES}, seed=0)
    constraint = Lagrangian({axis: 1 - KEPT[axis] / FULL[axis] for axis in MODULES}, RAMP)
    for axis, name in MODULES.items():
        masks.log_alpha[axis].copy_(module.masks[name].z_loga)
        for index in range(2):
            constraint.multipliers[axis][index] = module.lambdas[f"lambda_{index + 1}_{name}"]
    module.constrain_parameters()
    masks.limit()
    return masks, constraint


@contextlib.contextmanager
def _numbers_of(module) -> Iterator[dict[str, torch.Tensor]]:
    """While open, what the official masks draw is kept by axis, for `_given`."""
    drawn = {}
    axis_of = {name: axis for axis, name in MODULES.items()}
    official_mask = type(module.masks["head"])
    original = official_mask.get_eps

    def drawing(mask, size):
        drawn[axis_of[mask.name]] = original(mask, size)
        return drawn[axis_of[mask.name]]

    with unittest.mock.patch.object(official_mask, "get_eps", drawing):
        yield drawn


def _given(drawn: dict[str, torch.Tensor], masks: LearnedMasks):
    """A context in which ours draw these numbers."""
    in_turn = [drawn[axis] for axis in masks.log_alpha]
    return unittest.mock.patch.object(torch, "rand", side_effect=in_turn)


def _compare_masks(module, masks: LearnedMasks) -> dict:
    """Random masks at the same random numbers, and chances, by axis; the largest differences."""
    module.train()
    with _numbers_of(module) as drawn:
        theirs = module()
    with _given(drawn, masks):
        ours = masks.sample()
    kept = masks.kept()
    rows = []
    equal = []
    for axis, name in MODULES.items():
        # A block has one mask, which the official code lists for both of its sublayers.
        random_masks = theirs[{"layer": "mlp"}.get(name, name) + "_z"].view(ours[axis].shape)
        equal += [equal_share(ours[axis] == edge, random_masks == edge) for edge in (0, 1)]
        score, sparsity = module.masks[name].calculate_expected_score_sparsity()
        log_alpha = masks.log_alpha[axis]
        printed = hard_concrete.probability_of_zero(log_alpha, _PRINTED_BETA).mean(-1)
        rows.append(
            {
                "random": relative_difference(ours[axis], random_masks),
                "kept": relative_difference(kept[axis], score),
                "expected_size": relative_difference(
                    hard_concrete.expected_size(log_alpha), score.sum(-1)
                ),
                "removed": relative_difference(masks.removed()[axis], sparsity.reshape(-1)),
                "removed_at_the_printed_beta": relative_difference(printed, sparsity),
            }
        )
    largest = {f"{key}_difference": max(row[key] for row in rows) for key in rows[0]}
    return largest | {"least_zeros_and_ones_equal": min(equal)}


def _compare_step(official, model, masks, constraint, number: int) -> dict:
    """Losses and gradients of one training step.

    Args:
        official: the official model.
        model: ours.
        masks: our masks.
        constraint: our multipliers.
        number: number of the step, from 0.
    """
    tokens = tiny_tokens(4, 24)
    module = official.model.l0_module
    with _numbers_of(module) as drawn:
        losses = _official_step(official, tokens, number)
    step = MaskTrainingStep(
        model, masks, constraint, LearnedMasks.removed, next_token_loss, 3 * RAMP, 0
    )
    step.step.fill_(number)
    step.zero_grad()
    with torch.enable_grad(), _given(drawn, masks):
        loss = step(tokens)
        loss.backward()
    weights = dict(official.model.named_parameters())
    return {
        "step": number,
        "constraint_difference": relative_difference(
            constraint(masks.removed(), number), losses["lag_loss"]
        ),
        "loss_difference": relative_difference(loss, losses["total"]),
        "log_alpha_gradient_difference": max(
            relative_difference(masks.log_alpha[axis].grad, module.masks[name].z_loga.grad)
            for axis, name in MODULES.items()
        ),
        "multiplier_gradient_difference": max(
            _multipliers_difference(constraint.multipliers[axis], module.lambdas, name)
            for axis, name in MODULES.items()
        ),
        "weight_gradient_difference": max(
            relative_difference(weight.grad, weights[official_name(name)].grad)
            for name, weight in model.named_parameters()
        ),
    }


def _official_step(official, tokens: torch.Tensor, number: int) -> dict[str, torch.Tensor]:
    """The losses of a training step of the official model, which has the gradients afterwards."""
    official.train()
    official.zero_grad()
    # The next tokens are the targets; the last position has none.
    targets = torch.cat([tokens[:, 1:], torch.full((len(tokens), 1), -100)], 1)
    official.get_targets = lambda batch: batch["targets"]
    steps = torch.full((len(tokens),), number)
    batch = {"input_ids": tokens, "targets": targets, "pruned_steps": steps}
    with torch.enable_grad():
        losses = official.loss(official(batch), batch)
        losses["total"].backward()
    return losses


def _multipliers_difference(ours: torch.Tensor, theirs, name: str) -> float:
    """Of the gradients of both multipliers of a module."""
    gradients = [theirs[f"lambda_{index}_{name}"].grad for index in (1, 2)]
    return relative_difference(ours.grad, torch.stack(gradients))


def _compare_deterministic(module, masks: LearnedMasks) -> dict:
    """Which entries stay at the end, and what the official masks of those are."""
    kept = masks.keep(KEPT)
    equal = []
    equal_at_expected = []
    differences = []
    survivors = []
    for axis, name in MODULES.items():
        mask = module.masks[name]
        log_alpha = masks.log_alpha[axis]
        # For the final cut it is as many as the target says.
        theirs = mask.deterministic_z().view(log_alpha.shape)
        equal.append(equal_share(kept[axis], theirs > 0))
        survivors.append(theirs[theirs > 0])
        ours = hard_concrete.without_noise(log_alpha)[theirs > 0]
        differences.append(relative_difference(ours, survivors[-1]))
        # Before it is as many as are expected, rounded.
        mask.eval_target_model = False
        theirs = mask.deterministic_z().view(-1, log_alpha.shape[-1])
        for row, official in zip(log_alpha.view(theirs.shape), theirs, strict=True):
            zeros = round(row.numel() - hard_concrete.expected_size(row).item())
            ours = hard_concrete.keep(row, row.numel() - zeros)
            equal_at_expected.append(equal_share(ours, official > 0))
        mask.eval_target_model = True
    return {
        "least_kept_equal": min(equal),
        "least_kept_equal_at_expected_numbers": min(equal_at_expected),
        "soft_masks_difference": max(differences),
        "largest_official_mask": torch.cat(survivors).max().item(),
    }


def _compare_cut(official, model, masks: LearnedMasks) -> dict:
    """Logits under final masks, and after the cut, which is made in the official model itself."""
    tokens = tiny_tokens(4, 24)
    official.eval()
    theirs = official.model(tokens)
    soft = _by_axis(theirs["zs"], masks)
    with masked(model, soft):
        ours_soft = model(tokens, use_cache=False).logits
    # The official masks of what stays, where all log alpha have reached their limit.
    limit = hard_concrete.without_noise(torch.tensor(hard_concrete.LIMIT))
    binary = masks.keep(KEPT)
    with masked(model, {axis: limit * mask for axis, mask in binary.items()}):
        at_limit = model(tokens, use_cache=False).logits
    # Without masks of its own the official model takes those that it is given.
    official_cut = official.model
    official_cut.l0_module = None
    ones = {name: (mask > 0).float() for name, mask in theirs["zs"].items()}
    under_ones = official_cut(tokens, **ones)["logits"]
    with masked(model, binary):
        ours_under_ones = model(tokens, use_cache=False).logits
    official_cut.prune_params(ones)
    our_cut = copy.deepcopy(model)
    cut(our_cut, binary)
    return {
        "soft_logits_difference": relative_difference(ours_soft, theirs["logits"]),
        "logits_difference": relative_difference(ours_under_ones, under_ones),
        "cut_logits_difference": relative_difference(
            our_cut(tokens, use_cache=False).logits, official_cut(tokens)["logits"]
        ),
        "logits_difference_of_ones_to_masks_at_the_limit": relative_difference(
            ours_under_ones, at_limit
        ),
    }


def _by_axis(official_masks: dict, masks: LearnedMasks) -> dict[str, torch.Tensor]:
    """Official masks in the shapes of ours."""
    names = {axis: f"{name}_z" for axis, name in MODULES.items()} | {"blocks": "mlp_z"}
    return {
        axis: official_masks[name].view(masks.log_alpha[axis].shape) for axis, name in names.items()
    }


def _compare_shares(loading) -> dict:
    """Shares of seven domains after one update and after twenty."""
    generator = torch.Generator().manual_seed(3)
    count = 7
    names = [str(index) for index in range(count)]
    references = 1 + torch.rand(count, generator=generator)
    start = torch.softmax(torch.randn(count, generator=generator), 0)
    callback = loading.DynamicLoadingCallback(references.tolist(), start.tolist(), names)
    theirs = start.tolist()
    ours = start
    printed = start
    found = {}
    for update in range(1, 21):
        losses = references + 0.3 * torch.randn(count, generator=generator)
        theirs = callback.update_proportion(theirs, losses.tolist())
        ours = new_shares(ours, losses, references, clamp=False)
        printed = new_shares(printed, losses, references, smoothing=0)
        if update in (1, 20):
            official = torch.tensor(theirs)
            key = f"after_{update}"
            found[f"{key}_difference"] = relative_difference(ours, official)
            found[f"{key}_difference_of_the_printed_update"] = relative_difference(
                printed, official
            )
    return found
