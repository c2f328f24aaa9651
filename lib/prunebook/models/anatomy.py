"""The attention and MLP sublayers of a block: their coupled groups (heads and neurons), cut out for
good.

What depends on each other goes together (Fang et al., DepGraph, arXiv 2301.12900): an MLP neuron is
a row of every first matrix and a column of the last; a key-value head is its rows of keys and
values, with the rows of all query heads that read it and their columns of the output projection.
Inside a head nothing is cut: rotary positions pair its channels. The groups are written down for
each family, not traced from a graph: Torch-Pruning 1.6 finds an MLP's on transformers 5.23 in 0.03
s, and of a tiny Llama's attention none within 40 s.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import UserError
from .config import COMPRESSED


def weight_of(linear: nn.Module) -> torch.Tensor:
    """The weight of a linear as `[out, in]`, writable in place (GPT-2's Conv1D stores the
    transpose)."""
    return linear.weight.data.T if isinstance(linear, Conv1D) else linear.weight.data


@dataclass
class Block:
    """A decoder block and its linears that have weights by full name, e.g.
    `model.layers.0.self_attn.q_proj`."""

    index: int
    module: nn.Module
    linears: dict[str, nn.Module]


def find_blocks(model: nn.Module) -> list[Block]:
    """The decoder blocks of a causal language model, in order.

    Raises:
        UserError: the architecture has no recognisable blocks, or experts fused into one tensor,
            which no method here prunes: what is left dense in silence would not be the sparsity
            asked for.
    """
    name, stack = find_stack(model)
    for path, parameter in stack.named_parameters():
        if parameter.ndim == 3:
            raise UserError(
                f"{name}.{path} {list(parameter.shape)} holds the experts of a mixture in one "
                "tensor, which is not supported; use a model without experts"
            )
    return [
        Block(
            i,
            block,
            {path: x for path, x in linears_of(f"{name}.{i}.", block).items() if x.weight.numel()},
        )
        for i, block in enumerate(stack)
    ]


def norms(model: nn.Module) -> list[nn.Module]:
    """The norms over the hidden channels, those of the blocks and the final one."""
    width = model.config.hidden_size
    inside = {module for parts in all_sublayers(model) for module in parts.attention.modules()}
    return [  # those inside attention are over the channels of a head
        module
        for module in model.modules()
        if module not in inside
        and getattr(getattr(module, "weight", None), "shape", None) == (width,)
    ]


_ATTENTION = (  # queries, keys, values, output
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),  # OPT
    # BERT
    (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ),
)
_MLP = (  # first matrices, then the last
    ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    ("fc1", "fc2"),  # OPT
    ("intermediate.dense", "output.dense"),  # BERT
)


@dataclass(frozen=True)
class Sublayers:
    """The linears of one block by what they do, with their numbers of heads and neurons as they are
    now."""

    attention: nn.Module  # the module that splits queries, keys and values into heads
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    first: tuple[nn.Linear, ...]
    last: nn.Linear
    head_dim: int
    # norms follow the sum of residual and sublayer, rather than coming before the sublayer
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
        return self.last.in_features

    def group_sizes(self) -> tuple[int, int]:
        """Parameters of one key-value head with its query heads, and of one neuron."""
        row = self.query.in_features
        bias = (
            self.query.bias is not None,
            self.key.bias is not None,
            self.first[0].bias is not None,
        )
        queries = self.repeats * (row + self.out.out_features + bias[0])
        neuron = len(self.first) * (row + bias[2]) + self.last.out_features
        return self.head_dim * (queries + 2 * (row + bias[1])), neuron

    def group_flops(self, length: int) -> tuple[int, int]:
        """FLOPs of one key-value head with its query heads, and of one neuron, over `length`
        tokens: of matrix products and of attention over all pairs of tokens."""
        row = self.query.in_features
        head = (
            2 * length * row * self.head_dim * (2 * self.repeats + 2)
            + 4 * length**2 * self.head_dim * self.repeats
        )
        return head, 2 * length * row * (len(self.first) + 1)


def linears_of(prefix: str, block: nn.Module) -> dict[str, nn.Module]:
    """The linears of a block by full name."""
    return {
        prefix + name: m for name, m in block.named_modules() if isinstance(m, nn.Linear | Conv1D)
    }


def find_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The first list of `num_hidden_layers` modules that all hold linears, with its name.

    Raises:
        UserError: there is none, or `compress` has packed linears of it.
    """
    if hasattr(getattr(model, "config", None), COMPRESSED):
        raise UserError(
            f"{type(model).__name__} is compressed: its packed linears compute and do nothing "
            "else; load it as it was before compress"
        )
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for name, stack in model.named_modules():
        if (
            isinstance(stack, nn.ModuleList)
            and len(stack) == count
            and all(linears_of("", b) for b in stack)
        ):
            return name, stack
    raise UserError(
        f"{type(model).__name__} has no recognisable decoder blocks: looked for a ModuleList of "
        f"num_hidden_layers={count} modules that hold linear layers"
    )


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
    # the latter of OPT
    post_norm = attention is _ATTENTION[2] or not getattr(block, "do_layer_norm_before", True)
    return Sublayers(holder, query, key, value, out, tuple(first), last, head_dim, post_norm)


def all_sublayers(model: nn.Module) -> list[Sublayers]:
    """The sublayers of every block, from the bottom.

    Raises:
        UserError: as `sublayers` and `find_stack`.
    """
    return [sublayers(block) for block in find_stack(model)[1]]


def check_heads(parts: Sublayers) -> None:
    """Raise a `UserError` if attention has weights of all heads beside its projections (OLMo 2
    norms them together)."""
    linears = {parts.query, parts.key, parts.value, parts.out}
    for name, module in parts.attention.named_modules():
        sizes = {parameter.numel() for parameter in module.parameters(recurse=False)}
        if module not in linears and sizes - {parts.head_dim}:  # those of one head serve every head
            raise UserError(
                f"{type(parts.attention).__name__} cannot lose heads: its "
                f"{name or 'own parameter'} is over all of them"
            )
