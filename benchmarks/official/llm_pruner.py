"""LLM-Pruner, horseee/LLM-Pruner: its graph, importance and `MetaPruner` on tiny Llamas.

The code is given the model of transformers, as its own `llama3.py` does, with as many key-value
heads as query heads, where scores and cuts of the repository agree, and once with fewer, where they
do not. Losses and gradients are taken as `hf_prune.py` takes them, whose main function loads models
and text. Its magnitudes cannot rank hidden channels: those of the embedding are not summed.
"""

import contextlib
import copy
import io
from collections.abc import Callable

import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import prunebook as pb
from prunebook.methods import LLMPruner
from prunebook.methods.llm_pruner.group_scores import channel_scores, unit_scores
from prunebook.methods.llm_pruner.taylor import saliences
from prunebook.models.anatomy import all_sublayers

from .common import (
    equal_share,
    official_module,
    relative_difference,
    stand_in,
    tiny_llama,
    tiny_tokens,
)

REPOSITORY = "https://github.com/horseee/LLM-Pruner"
COMMIT = "128a07d"
# our criterion -> that of the repository
_CRITERIA = {
    "element1": "param_first",
    "element2": "param_second",
    "mix": "param_mix",
    "vector": "vectorize",
}
_AGGREGATIONS = ("sum", "prod", "max")
_RATIO = 0.5
_CHANNEL_SPARSITY = 0.25


def parity(folder: str) -> dict:
    """Scores of groups and pruned weights of the official code beside ours.

    Args:
        folder: a checkout of the repository.
    """
    # Only these two packages: the others import models of older transformers.
    for package in ("LLMPruner", "LLMPruner.pruner"):
        stand_in(package, __path__=[f"{folder}/{package.replace('.', '/')}"])
    pruners = official_module(folder, "LLMPruner.pruner.hf_llama_pruner")
    tokens = tiny_tokens(6, 24)
    rows = []
    for criterion in _CRITERIA:
        for aggregation in _AGGREGATIONS:
            rows.append(_compare(pruners, tiny_llama(), tokens, criterion, aggregation))
    rows.append(_compare(pruners, tiny_llama(), tokens, "l2", "sum"))
    # With "sdpa" the graph would not see that keys are repeated for several queries.
    grouped = tiny_llama(num_key_value_heads=2, attn_implementation="eager")
    return {
        "multi_head": rows,
        "channels": [
            _compare_channels(pruners, tiny_llama(), tokens, criterion)
            for criterion in ("element1", "vector")
        ],
        "two_heads_a_group": _compare(pruners, grouped, tokens, "element1", "sum"),
    }


def _compare(pruners, model, tokens: torch.Tensor, criterion: str, aggregation: str) -> dict:
    """One criterion: scores of all groups, and the weights after half of the units have gone.

    Args:
        pruners: the repository's module.
        model: dense, left as it is.
        tokens: `[n, length]`.
        criterion: ours.
        aggregation: over the matrices of a group.
    """
    their_model = copy.deepcopy(model)
    their_heads, their_neurons = _official_units(
        pruners, their_model, tokens, criterion, aggregation
    )
    salience = saliences(model, tokens, criterion)
    heads = []
    neurons = []
    strided = []
    for parts in all_sublayers(model):
        of_heads, of_neurons = unit_scores(parts, salience, criterion, aggregation)
        heads.append(of_heads)
        neurons.append(of_neurons)
        strided.append(unit_scores(parts, salience, criterion, aggregation, "strided")[0])
    our_model = copy.deepcopy(model)
    method = LLMPruner(
        ratio=_RATIO, criterion=criterion, aggregation=aggregation, keep_first=0, keep_last=0
    )
    pb.prune(our_model, method, calibration=tokens)
    row = {
        "criterion": criterion,
        "aggregation": aggregation,
        "heads_difference": _largest(heads, their_heads),
        "neurons_difference": _largest(neurons, their_neurons),
        **_weights_equal(our_model, their_model),
    }
    if model.config.num_key_value_heads < model.config.num_attention_heads:
        row["heads_difference_strided"] = _largest(strided, their_heads)
    return row


def _compare_channels(pruners, model, tokens: torch.Tensor, criterion: str) -> dict:
    """One criterion, channel-wise: scores of hidden channels, and the weights without a quarter.

    Args:
        pruners: the repository's module.
        model: dense, left as it is.
        tokens: `[n, length]`.
        criterion: ours.
    """
    their_model = copy.deepcopy(model)
    found = []
    layout = {"root_module_types": [LlamaRMSNorm], "ch_sparsity": _CHANNEL_SPARSITY}
    _official(
        pruners, their_model, tokens, criterion, "sum", lambda imp, _: found.append(imp), layout
    )
    salience = saliences(model, tokens, criterion, channels=True)
    our_model = copy.deepcopy(model)
    method = LLMPruner(_CHANNEL_SPARSITY, criterion=criterion, structure="channel")
    pb.prune(our_model, method, calibration=tokens)
    return {
        "criterion": criterion,
        "groups": len(found),
        "channels_difference": _largest([channel_scores(model, salience, criterion)], found),
        **_weights_equal(our_model, their_model),
    }


def _official_units(
    pruners, model, tokens: torch.Tensor, criterion: str, aggregation: str
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Prune block-wise in place; the scores of heads and of neurons, for each block."""
    heads = []
    neurons = []

    def take(imp, head_dim):
        if head_dim > 1:
            heads.append(imp.view(-1, head_dim).sum(1))
        else:
            neurons.append(imp)

    layers = model.model.layers
    # Groups begin at the queries in `hf_prune.py`, at the fewer keys in `llama3.py`.
    roots = [layer.self_attn.q_proj for layer in layers]
    if model.config.num_key_value_heads < model.config.num_attention_heads:
        roots = [layer.self_attn.k_proj for layer in layers]
    layout = {
        "consecutive_groups": dict.fromkeys(roots, model.config.head_dim),
        "root_module_types": None,
        "root_instances": roots + [layer.mlp.gate_proj for layer in layers],
        "ch_sparsity": _RATIO,
    }
    _official(pruners, model, tokens, criterion, aggregation, take, layout)
    return heads, neurons


def _official(
    pruners,
    model,
    tokens: torch.Tensor,
    criterion: str,
    aggregation: str,
    take: Callable[[torch.Tensor, int], None],
    layout: dict,
) -> None:
    """Prune as `hf_prune.py` does, in place.

    Args:
        pruners: the repository's module.
        model: dense.
        tokens: `[n, length]`.
        criterion: ours.
        aggregation: over the matrices of a group.
        take: gets the scores of each group of channels, and how many channels go together.
        layout: options of the `MetaPruner`, which say what groups begin with.
    """
    if criterion == "l2":
        # The default of the repository, the mean over matrices, would only divide the scores.
        importance = pruners.MagnitudeImportance(p=2, group_reduction=aggregation)
    else:
        importance = pruners.TaylorImportance(
            group_reduction=aggregation, taylor=_CRITERIA[criterion]
        )

    def recording(group, **options):
        imp = importance(group, **options)
        take(imp, options["consecutive_groups"])
        return imp

    model.requires_grad_(True)
    with torch.enable_grad(), contextlib.redirect_stdout(io.StringIO()):
        pruner = pruners.tp.pruner.MetaPruner(
            model,
            tokens[:2, :8],
            importance=recording,
            ignored_layers=[],
            channel_groups={},
            customized_pruners={LlamaRMSNorm: pruners.hf_rmsnorm_pruner},
            output_transform=lambda output: output.logits,
            **layout,
        )
        model.zero_grad()
        if criterion in ("element2", "mix"):
            _accumulate_squares(model, tokens)
        model(tokens, labels=tokens).loss.backward()
        pruner.step()


def _accumulate_squares(model, tokens: torch.Tensor) -> None:
    """Set `acc_grad` of every parameter to the mean of the squared gradients of single windows."""
    for parameter in model.parameters():
        parameter.acc_grad = torch.zeros_like(parameter)
    for window in tokens:
        model(window[None], labels=window[None]).loss.backward()
        for parameter in model.parameters():
            parameter.acc_grad += parameter.grad * parameter.grad / len(tokens)
        model.zero_grad()


def _largest(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest relative difference of the scores of all blocks."""
    return max(relative_difference(one, other) for one, other in zip(ours, theirs, strict=True))


def _weights_equal(ours, theirs) -> dict:
    """Share of entries that are equal in two pruned models, and whether all shapes are."""
    weights = dict(theirs.named_parameters())
    shapes_equal = all(
        weight.shape == weights[name].shape for name, weight in ours.named_parameters()
    )
    shares = [0.0]
    if shapes_equal:
        shares = [equal_share(weight, weights[name]) for name, weight in ours.named_parameters()]
    return {"shapes_equal": shapes_equal, "least_equal_share_of_a_weight": min(shares)}
