"""Minitron's importance, NVIDIA/Model-Optimizer: the hooks of `mcore_minitron.py` on a tiny Llama.

NVlabs/Minitron holds no code; the repository named here does, for models of Megatron. Its functions
that register hooks and turn what they gathered into scores run as they are, their text taken out of
the module, whose imports need Megatron. In place of Megatron's modules they get those of
transformers, through objects with the names that they read. The gather over devices, the identity
on one, exchanges the first two dimensions, which Megatron has as `[length, samples]`.

Its code reads norms that are modules of their own, as in its mixtures of experts; fused norms have
the same formula. Depth scores are added over batches there: ours are means.
"""

import ast
import types
import unittest.mock
from functools import partial
from pathlib import Path

import torch

from prunebook.methods.minitron.activations import activation_importance
from prunebook.methods.minitron.trim import _best_heads
from prunebook.models.sizes import top_k

from .common import equal_share, relative_difference, tiny_llama, tiny_tokens

REPOSITORY = "https://github.com/NVIDIA/Model-Optimizer"
COMMIT = "a2fbac7"
_FUNCTIONS = (
    "_register_hidden_size_importance",
    "_register_depth_cosine_importance",
    "_register_self_attention_importance",
    "_register_mlp_importance",
)
_SAMPLES = 8
_BATCH = 2


class _Part(types.SimpleNamespace):
    """A module of Megatron as far as the official functions read it."""

    def _register_temp_attribute(self, name: str, value) -> None:
        setattr(self, name, value)

    def get_hparam(self, name: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(max=self.sizes[name])

    def register_forward_hook(self, hook, **options):
        return self.hooked.register_forward_hook(hook, **options)


class _Attention(_Part):
    """Stands in for Megatron's attention whose norm is a module of its own."""


class _ExpertLayer(_Part):
    """Stands in for Megatron's MLPs whose norm is a module of its own."""


class _TransformerLayer(_Part):
    """Stands in for Megatron's blocks where their norms are looked for."""


class _Registry:
    """What the official functions register hooks and scores with."""

    def __init__(self):
        self.scores = {}

    def register_hook(self, module, hook, hook_type: str = "forward", **options) -> None:
        module.register_forward_hook(hook, **options)

    def register_importance(self, module, name: str, score, importance_is_order=False) -> None:
        self.scores.setdefault(name, []).append(score)


def parity(folder: str) -> dict:
    """Scores and kept units of the official functions beside ours, with groups of two sizes.

    Args:
        folder: a checkout of the repository.
    """
    functions = _official_functions(folder)
    tokens = tiny_tokens(_SAMPLES, 32)
    compared = {}
    for name, kv_heads in (("two_heads_a_group", 4), ("four_heads_a_group", 2)):
        model = tiny_llama(num_attention_heads=8, num_key_value_heads=kv_heads)
        compared[name] = _compare(functions, model, tokens)
    return compared


def _official_functions(folder: str) -> dict:
    """Name -> the official functions, from their text, with stand-ins for what they name."""
    path = Path(folder) / "modelopt" / "torch" / "prune" / "plugins" / "mcore_minitron.py"
    nodes = [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name in _FUNCTIONS
    ]
    # Annotations name classes of Megatron; they are not evaluated.
    future = ast.parse("from __future__ import annotations").body
    names = {
        "torch": torch,
        "F": torch.nn.functional,
        "partial": partial,
        "gather_from_tensor_model_parallel_region": lambda x: x.transpose(0, 1),
        "reduce_from_tensor_model_parallel_region": lambda x: x,
        "_fused_ln_linears_over_hidden_size": lambda module: [],
        "_DynamicTransformerLayer": _TransformerLayer,
        "_DynamicAttention": _Attention,
        "_DynamicMoELayer": _ExpertLayer,
        "_DynamicMLP": type(None),
        "_DynamicMambaLayer": type(None),
    }
    exec(compile(ast.Module(future + nodes, []), path, "exec"), names)
    return names


def _compare(functions: dict, model, tokens: torch.Tensor) -> dict:
    """Scores of all axes of one model.

    Args:
        functions: as from `_official_functions`.
        model: a Llama; hooks stay on it.
        tokens: `[n, length]`.
    """
    ours = activation_importance(model, tokens, head_norm="channel")
    registry, depth = _register(functions, model)
    for batch in tokens.split(_BATCH):
        model(batch, use_cache=False)
    heads = []

    def recording(values, *arguments, original=torch.linalg.vector_norm, **options):
        heads.append(original(values, *arguments, **options))
        return heads[-1]

    with (
        unittest.mock.patch.object(torch.linalg, "vector_norm", recording),
        unittest.mock.patch.object(torch.distributed, "all_reduce"),
    ):
        theirs = {name: [one() for one in several] for name, several in registry.scores.items()}
    batches = len(tokens) // _BATCH
    influence = torch.tensor([part._scores for part in depth]) / batches
    blocks = range(len(depth))
    neurons = theirs["ffn_hidden_size"]
    kept_neurons = model.config.intermediate_size // 2
    kept_hidden = model.config.hidden_size // 2
    return {
        "neurons_difference": max(relative_difference(ours.neurons[i], neurons[i]) for i in blocks),
        "heads_difference": max(relative_difference(ours.heads[i], heads[i]) for i in blocks),
        "hidden_difference": relative_difference(ours.hidden, theirs["hidden_size"][0]),
        "influence_difference": relative_difference(ours.influence, influence),
        "half_of_neurons_equal": min(
            _kept_equal(top_k(ours.neurons[i], kept_neurons), neurons[i].argsort(descending=True))
            for i in blocks
        ),
        "half_of_heads_equal": min(
            _heads_equal(model.config, ours.heads[i], theirs["num_attention_heads"][i])
            for i in blocks
        ),
        "half_of_hidden_equal": _kept_equal(
            top_k(ours.hidden, kept_hidden), theirs["hidden_size"][0].argsort(descending=True)
        ),
        "paper_heads_to_official": _paper_heads(model, tokens, heads),
    }


def _register(functions: dict, model) -> tuple[_Registry, list[_Part]]:
    """Hooks of the official functions on a Llama: what registers scores, and a part a block."""
    registry = _Registry()
    layers = []
    depth = []
    config = model.config
    for layer in model.model.layers:
        attention = _Attention(
            linear_proj=layer.self_attn.o_proj,
            num_query_groups_per_partition=config.num_key_value_heads,
            config=types.SimpleNamespace(kv_channels=config.head_dim),
            sizes={"num_attention_heads": config.num_attention_heads},
            _has_fused_input_layernorm=False,
        )
        mlp = _Part(linear_fc2=layer.mlp.down_proj, hparam_name="ffn_hidden_size")
        functions["_register_self_attention_importance"](attention, registry)
        functions["_register_mlp_importance"](mlp, registry)
        layers.append(
            _TransformerLayer(
                self_attention=attention,
                mlp=_ExpertLayer(),
                input_layernorm=layer.input_layernorm,
                pre_mlp_layernorm=layer.post_attention_layernorm,
            )
        )
        depth.append(_Part(hooked=layer))
        functions["_register_depth_cosine_importance"](depth[-1], registry)
    whole = _Part(decoder=types.SimpleNamespace(layers=layers))
    functions["_register_hidden_size_importance"](whole, registry)
    return registry, depth


def _kept_equal(kept: list[int], order: torch.Tensor) -> float:
    """Share of our kept units that are in the prefix of the official order as well."""
    return len(set(kept) & set(order[: len(kept)].tolist())) / len(kept)


def _heads_equal(config, scores: torch.Tensor, order: torch.Tensor) -> float:
    """Share of query heads on which both agree when half of each group goes.

    Args:
        config: configuration of the model.
        scores: ours, `[H]`.
        order: the official ranking of all heads, those of a group in a row.
    """
    groups = config.num_key_value_heads
    size = config.num_attention_heads // groups
    count = size // 2
    ours = torch.zeros(config.num_attention_heads, dtype=torch.bool)
    ours[_best_heads(scores, groups, count * groups)] = True
    theirs = torch.zeros_like(ours)
    theirs[order.view(groups, size)[:, :count].flatten()] = True
    return equal_share(ours, theirs)


def _paper_heads(model, tokens: torch.Tensor, heads: list[torch.Tensor]) -> float:
    """How far the paper's order, norms of heads at each token first, moves the scores of heads."""
    paper = activation_importance(model, tokens, head_norm="token").heads
    pairs = zip(paper, heads, strict=True)
    return max(relative_difference(ours, theirs) for ours, theirs in pairs)
