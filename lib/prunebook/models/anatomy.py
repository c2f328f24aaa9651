"""Find the parts of a model: blocks, linears, heads and neurons of attention and MLP, norms.

What depends on each other goes together (Fang et al., DepGraph, arXiv 2301.12900): an MLP neuron is
a row of every first matrix and a column of the last; a key-value head is its rows of keys and
values, with the rows of all query heads that read it and their columns of the output projection.
Inside a head nothing is cut: rotary positions pair its channels.

The groups are written down for each family, not traced from a graph: Torch-Pruning 1.6 finds an
MLP's on transformers 5.23 in 0.03 s, and of a tiny Llama's attention none within 40 s.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import UserError
from .config import COMPRESSED

# Names of queries, keys, values and output projection inside a block, by family.
_ATTENTION = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),  # OPT
    (  # BERT
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ),
)
_BERT_ATTENTION = _ATTENTION[2]

# Names of the first matrices of the MLP, then of the last, by family.
_MLP = (
    ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    ("fc1", "fc2"),  # OPT
    ("intermediate.dense", "output.dense"),  # BERT
)


# Linears and blocks


@dataclass
class Block:
    """A decoder block.

    index: its number, from 0.
    module: the block itself.
    linears: full name, e.g. `model.layers.0.self_attn.q_proj` -> linear that has weights.
    """

    index: int
    module: nn.Module
    linears: dict[str, nn.Module]


def weight_of(linear: nn.Module) -> torch.Tensor:
    """The weight of a linear as `[out, in]`, writable in place (GPT-2's Conv1D stores the
    transpose)."""
    weight = linear.weight.data
    if isinstance(linear, Conv1D):
        weight = weight.T
    return weight


def linears_of(prefix: str, block: nn.Module) -> dict[str, nn.Module]:
    """The linears inside a module, each by its name there with `prefix` in front."""
    return {
        prefix + name: module
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }


def find_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The first list of `num_hidden_layers` modules that all hold linears, with its name.

    Raises:
        UserError: there is none, or `compress` has packed linears of it.
    """
    config = getattr(model, "config", None)
    if hasattr(config, COMPRESSED):
        raise UserError(
            f"{type(model).__name__} is compressed: its packed linears compute and do nothing "
            "else; load it as it was before compress"
        )
    count = getattr(config, "num_hidden_layers", None)
    for name, stack in model.named_modules():
        is_list = isinstance(stack, nn.ModuleList) and len(stack) == count
        if is_list and all(linears_of("", block) for block in stack):
            return name, stack
    raise UserError(
        f"{type(model).__name__} has no recognisable decoder blocks: looked for a ModuleList of "
        f"num_hidden_layers={count} modules that hold linear layers"
    )


def find_blocks(model: nn.Module) -> list[Block]:
    """The decoder blocks of a causal language model, in order.

    Raises:
        UserError: the architecture has no recognisable blocks, or experts fused into one tensor,
            which no method here prunes: to leave them dense in silence would not be the sparsity
            asked for.
    """
    name, stack = find_stack(model)
    for path, parameter in stack.named_parameters():
        if parameter.ndim == 3:
            raise UserError(
                f"{name}.{path} {list(parameter.shape)} holds the experts of a mixture in one "
                "tensor, which is not supported; use a model without experts"
            )
    blocks = []
    for index, block in enumerate(stack):
        linears = linears_of(f"{name}.{index}.", block)
        # A linear of which every row or column was cut out has no weights left.
        linears = {path: linear for path, linear in linears.items() if linear.weight.numel()}
        blocks.append(Block(index, block, linears))
    return blocks


# Attention and MLP


@dataclass(frozen=True)
class Sublayers:
    """The linears of one block by what they do, with their numbers of heads and neurons as they are
    now.

    attention: the module that splits queries, keys and values into heads.
    query, key, value, out: the projections of attention.
    first: the first matrices of the MLP.
    last: the last matrix of the MLP.
    head_dim: channels of a head.
    post_norm: norms follow the sum of residual and sublayer, rather than coming before the
        sublayer.
    """

    attention: nn.Module
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    first: tuple[nn.Linear, ...]
    last: nn.Linear
    head_dim: int
    post_norm: bool

    @property
    def heads(self) -> int:
        """Query heads H."""
        return self.query.out_features // self.head_dim

    @property
    def kv_heads(self) -> int:
        """Key-value heads K; each is read by H / K query heads that follow each other."""
        return self.key.out_features // self.head_dim

    @property
    def repeats(self) -> int:
        """Query heads that read one key-value head, H / K."""
        return self.heads // max(self.kv_heads, 1)

    @property
    def neurons(self) -> int:
        """Neurons of the MLP."""
        return self.last.in_features

    def group_sizes(self) -> tuple[int, int]:
        """Parameters of one key-value head with its query heads, and of one neuron."""
        # A row has the inputs of its matrix, and one more with a bias.
        inputs = self.query.in_features
        query_row = inputs + (self.query.bias is not None)
        key_row = inputs + (self.key.bias is not None)
        first_row = inputs + (self.first[0].bias is not None)
        queries = self.repeats * (query_row + self.out.out_features)
        neuron = len(self.first) * first_row + self.last.out_features
        return self.head_dim * (queries + 2 * key_row), neuron

    def group_flops(self, length: int) -> tuple[int, int]:
        """FLOPs of one key-value head with its query heads, and of one neuron.

        They are those of matrix products and of attention over all pairs of `length` tokens.
        """
        inputs = self.query.in_features
        projections = 2 * length * inputs * self.head_dim * (2 * self.repeats + 2)
        attention = 4 * length**2 * self.head_dim * self.repeats
        neuron = 2 * length * inputs * (len(self.first) + 1)
        return projections + attention, neuron


def sublayers(block: nn.Module) -> Sublayers:
    """The sublayers of a block.

    Raises:
        UserError: an architecture without separate projections (GPT-2 fuses queries, keys and
            values).
    """
    modules = dict(block.named_modules())
    attention = next((names for names in _ATTENTION if set(names) <= set(modules)), None)
    mlp = next((names for names in _MLP if set(names) <= set(modules)), None)
    if attention is None or mlp is None:
        raise UserError(
            f"{type(block).__name__} has no heads and neurons that can be told apart: linears such "
            f"as {', '.join(_ATTENTION[0])} and {', '.join(_MLP[0])} are needed"
        )
    query, key, value, out = (modules[name] for name in attention)
    holder = modules[attention[0].rpartition(".")[0]]
    head_dim = getattr(holder, "head_dim", None) or holder.attention_head_size
    *first, last = (modules[name] for name in mlp)
    # OPT says by an attribute of its blocks on which side of the sum the norms are.
    norms_come_first = getattr(block, "do_layer_norm_before", True)
    post_norm = attention is _BERT_ATTENTION or not norms_come_first
    return Sublayers(holder, query, key, value, out, tuple(first), last, head_dim, post_norm)


def all_sublayers(model: nn.Module) -> list[Sublayers]:
    """The sublayers of every block, from the bottom.

    Raises:
        UserError: see `sublayers` and `find_stack`.
    """
    return [sublayers(block) for block in find_stack(model)[1]]


def check_heads(parts: Sublayers) -> None:
    """Raise a `UserError` if attention has weights of all heads beside its projections (OLMo 2
    norms them together)."""
    linears = {parts.query, parts.key, parts.value, parts.out}
    for name, module in parts.attention.named_modules():
        sizes = {parameter.numel() for parameter in module.parameters(recurse=False)}
        # Weights of the size of one head serve every head.
        if module not in linears and sizes - {parts.head_dim}:
            raise UserError(
                f"{type(parts.attention).__name__} cannot lose heads: its "
                f"{name or 'own parameter'} is over all of them"
            )


def norms(model: PreTrainedModel) -> list[nn.Module]:
    """The norms over the hidden channels, those of the blocks and the final one."""
    # The norms inside attention are over the channels of a head.
    inside_attention = set()
    for parts in all_sublayers(model):
        inside_attention.update(parts.attention.modules())
    shape = (model.config.hidden_size,)
    return [
        module
        for module in model.modules()
        if module not in inside_attention
        and getattr(getattr(module, "weight", None), "shape", None) == shape
    ]
