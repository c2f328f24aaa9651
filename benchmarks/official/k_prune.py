"""K-prune, snudm-starlab/K-prune: knowledge, mask search and tuning of `src/prune.py`, in steps.

A tiny random BERT classifier is the teacher; the student is the same with noise in its first block.
Calls of `Tensor.cuda` return the tensor. Steps are compared with the same inputs, as whole runs
differ by what the method's module lists: here the repository's direction of the divergence is given
to ours, its batches hold one window, and its heads, means over their channels, are compared with
ours of single channels.
"""

import contextlib
import copy
import unittest.mock
from collections.abc import Iterator

import torch
from transformers import BertConfig, BertForSequenceClassification

from prunebook.methods.k_prune.knowledge import knowledge, output_projections
from prunebook.methods.k_prune.predictions import predictions
from prunebook.methods.k_prune.refit import output_matrix, refit
from prunebook.methods.k_prune.refit_examples import examples
from prunebook.methods.k_prune.search import flops_of_units, survivors
from prunebook.methods.k_prune.sublayer_steps import blocks_to_cut, cut_sublayer

from .common import equal_share, official_module, relative_difference, tiny_tokens

REPOSITORY = "https://github.com/snudm-starlab/K-prune"
COMMIT = "9ca629a"
_BLOCKS = 3
_HEADS = 4
_WIDTH = 64
_HEAD_DIM = _WIDTH // _HEADS
_NEURONS = 96
_TEMPERATURE = 2.0
# The attention of the second block and all sublayers above it are measured.
_TARGET = 2
_LENGTH = 24


def parity(folder: str) -> dict:
    """Knowledge, masks and refitted weights of the official functions beside ours.

    Args:
        folder: a checkout of the repository.
    """
    prune = official_module(f"{folder}/src", "prune")
    capacity = official_module(f"{folder}/src", "utils.capacity")
    tokens = tiny_tokens(16, _LENGTH)
    teacher = _teacher()
    student = copy.deepcopy(teacher)
    generator = torch.Generator().manual_seed(1)
    for parameter in student.bert.encoder.layer[0].parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    with unittest.mock.patch.object(torch.Tensor, "cuda", lambda self: self):
        compared = {
            "knowledge": _compare_knowledge(prune, teacher, student, tokens),
            "flops_equal": _flops(capacity) == flops_of_units(teacher, _LENGTH)[:2],
            "search": _compare_search(prune),
        }
        for of_mlp, name in ((False, "attention"), (True, "mlp")):
            for dtype in (torch.float32, torch.float64):
                with _default_dtype(dtype):
                    row = _compare_refit(prune, teacher, student, tokens, of_mlp, dtype)
                compared[f"refit_{name}_{str(dtype).removeprefix('torch.')}"] = row
    return compared


def _teacher() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=128,
        hidden_size=_WIDTH,
        intermediate_size=_NEURONS,
        num_hidden_layers=_BLOCKS,
        num_attention_heads=_HEADS,
        max_position_embeddings=32,
        initializer_range=0.2,
        num_labels=5,
    )
    return BertForSequenceClassification(config).eval()


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors, e.g. the masks of the official code, are of this dtype."""
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def _flops(capacity) -> list[int]:
    return [
        capacity.flops_per_head(_LENGTH, _HEAD_DIM, _WIDTH),
        capacity.flops_per_neuron(_LENGTH, _WIDTH),
    ]


def _official_scores(
    prune, teacher, student, tokens: torch.Tensor, target: int, weights: tuple, batch: int = 1
) -> tuple:
    """What `compute_scores` returns for the student, after it has seen the teacher.

    Args:
        prune: the repository's module.
        teacher: gives soft labels and states of all sublayers.
        student: gives scores.
        tokens: `[n, length]`.
        target: number of the first sublayer that is scored.
        weights: of predictive and representational knowledge.
        batch: windows in a batch.
    """
    # `compute_scores` takes a model that changes between its calls.
    model = copy.deepcopy(teacher).requires_grad_(False)
    batches = [
        {"input_ids": windows, "attention_mask": torch.ones_like(windows)}
        for windows in tokens.split(batch)
    ]
    sizes = (_HEAD_DIM, _BLOCKS, _HEADS, _NEURONS)
    constants = (*weights, 1.0, _TEMPERATURE, 1.0, 1.0)
    with torch.enable_grad():
        *_, outputs, labels = prune.compute_scores(
            model, batches, False, 0, *sizes, *constants, {}, []
        )
        model.load_state_dict(student.state_dict())
        return prune.compute_scores(
            model, batches, False, target, *sizes, *constants, outputs, labels
        )


def _teacher_first(logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float):
    """`gamma^2 KL(teacher || student)`, the direction of the repository, summed over windows."""
    student = torch.log_softmax(logits / temperature, -1)
    teacher = torch.softmax(teacher_logits / temperature, -1)
    return temperature**2 * torch.nn.functional.kl_div(student, teacher, reduction="sum")


def _compare_knowledge(prune, teacher, student, tokens: torch.Tensor) -> dict:
    """Both kinds of knowledge of all sublayers from `_TARGET` on."""
    of_teacher = predictions(teacher, tokens)
    run = {"first": _TARGET, "temperature": _TEMPERATURE}
    module = "prunebook.methods.k_prune.knowledge"
    channels = [(linear, 1) for linear, _ in output_projections(student)]
    with unittest.mock.patch(f"{module}.divergence", _teacher_first):
        ours = knowledge(student, tokens, of_teacher, **run)
        with unittest.mock.patch(f"{module}.output_projections", return_value=channels):
            of_channels = knowledge(student, tokens, of_teacher, **run)
    printed = knowledge(student, tokens, of_teacher, **run)
    found = {}
    kinds = {"predictive": (1.0, 0.0), "representational": (0.0, 1.0)}
    for kind, (name, weights) in enumerate(kinds.items()):
        heads, neurons = _official_scores(prune, teacher, student, tokens, _TARGET, weights)[:2]
        heads = heads[_TARGET // 2 :].flatten()
        neurons = neurons[_TARGET // 2 :].flatten()
        means = torch.cat(of_channels[kind][::2]).view(-1, _HEAD_DIM).mean(1)
        whole = torch.cat(ours[kind][::2])
        found |= {
            f"{name}_neurons_difference": relative_difference(torch.cat(ours[kind][1::2]), neurons),
            f"{name}_heads_difference_as_means_of_channels": relative_difference(means, heads),
            # What the method does: whole heads, beside the sums over channels of the official.
            f"{name}_heads_difference_of_whole_heads": relative_difference(
                whole, heads * _HEAD_DIM
            ),
        }
        if name == "predictive":
            found["predictive_neurons_difference_of_the_printed_direction"] = relative_difference(
                torch.cat(printed[kind][1::2]), neurons
            )
            batched = _official_scores(prune, teacher, student, tokens, _TARGET, weights, 8)[1]
            ratio = neurons.sum() / batched[_TARGET // 2 :].sum()
            found["predictive_neurons_of_single_windows_to_batches_of_8"] = ratio.item()
    return found


def _compare_search(prune) -> dict:
    """Masks of `find_mask` and of `survivors` for random scores, all sublayers and budgets."""
    generator = torch.Generator().manual_seed(2)
    flops = [68, 1] * _BLOCKS
    units = [_HEADS, _NEURONS] * _BLOCKS
    of_sublayers = [cost * number for cost, number in zip(flops, units, strict=True)]
    equal = []
    for fraction in (0.1, 0.25, 0.5, 0.75, 0.9):
        for target in range(2 * _BLOCKS):
            heads = torch.rand(_BLOCKS, _HEADS, generator=generator)
            neurons = torch.rand(_BLOCKS, _NEURONS, generator=generator)
            # Half a FLOP more: the official rule does not meet a budget exactly.
            budget = int(fraction * sum(of_sublayers[target:])) + 0.5
            theirs = prune.find_mask(target, heads, neurons, flops[0], flops[1], budget)
            scores = []
            for of_heads, of_neurons in zip(heads, neurons, strict=True):
                scores += [of_heads, of_neurons]
            ours = torch.zeros_like(theirs)
            ours[survivors(scores[target:], flops[target:], budget)] = True
            equal.append(equal_share(ours, theirs))
    return {"cases": len(equal), "least_mask_bits_equal": min(equal)}


def _compare_refit(
    prune, teacher, student, tokens: torch.Tensor, of_mlp: bool, dtype: torch.dtype
) -> dict:
    """Tuned weights of one sublayer of the second block, cut to half of its units.

    Args:
        prune: the repository's module.
        teacher: the unpruned model.
        student: the model that is cut, in whose first block noise stands for what was cut.
        tokens: `[n, length]`.
        of_mlp: the sublayer is the MLP, not the attention.
        dtype: of both models.
    """
    teacher, student = (copy.deepcopy(model).to(dtype) for model in (teacher, student))
    target = _TARGET + of_mlp
    _, _, features, inputs, outputs, _ = _official_scores(
        prune, teacher, student, tokens, target, (1.0, 1.0)
    )
    units = {False: _HEADS, True: _NEURONS}[of_mlp]
    kept = list(range(0, units, 2))
    mask = torch.zeros(units, dtype=torch.bool)
    mask[kept] = True
    theirs = prune.knowledge_reconstruction(
        student, mask, target, features, inputs, outputs[target], _HEAD_DIM
    )
    # The walk of the student begins after its first block has got its noise.
    walked = copy.deepcopy(teacher)
    steps = blocks_to_cut(walked, tokens, with_teacher=True, precision="exact", progress=None)
    walked.load_state_dict(student.state_dict())
    for step, teacher_step in steps:
        if step.index == target // 2:
            cut_sublayer(step, kept, of_mlp)
            linear = output_matrix(step, of_mlp)
            before = linear.weight.clone()
            refit(linear, examples(step, teacher_step, of_mlp), 0.0)
            break
    return {
        "units": len(kept),
        "weight_difference": relative_difference(linear.weight, theirs.T),
        "change_by_the_refit": relative_difference(before, theirs.T),
    }
