"""The attention and MLP sublayers of a block: their coupled groups (heads and neurons), cut out for
good.

What depends on each other goes together (Fang et al., DepGraph, arXiv 2301.12900): an MLP neuron is
a row of every first matrix and a column of the last; a key-value head is its rows of keys and
values, with the rows of all query heads that read it and their columns of the output projection.
Inside a head nothing is cut: rotary positions pair its channels. The groups are written down for
each family, not traced from a graph: Torch-Pruning 1.6 finds an MLP's on transformers 5.23 in 0.03
s, and of a tiny Llama's attention none within 40 s.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from .errors import UserError

# key in config.json: linears that hold packed weights, and in what form
COMPRESSED = "prunebook_packed"
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
            f"else; load it as it was "
            "before compress"
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
            f"{type(block).__name__} has no heads and neurons that can be told apart: linears "
            f"such as "
            f"{', '.join(_ATTENTION[0])} and {', '.join(_MLP[0])} are needed"
        )
    query, key, value, out = (modules[name] for name in attention)
    holder = modules[attention[0].rpartition(".")[0]]
    head_dim = getattr(holder, "head_dim", None) or holder.attention_head_size
    *first, last = (modules[name] for name in mlp)
    # the latter of OPT
    post_norm = attention is _ATTENTION[2] or not getattr(block, "do_layer_norm_before", True)
    return Sublayers(holder, query, key, value, out, tuple(first), last, head_dim, post_norm)


def every_sublayers(model: nn.Module) -> list[Sublayers]:
    """The sublayers of every block, from the bottom.

    Raises:
        UserError: as `sublayers` and `find_stack`.
    """
    return [sublayers(block) for block in find_stack(model)[1]]


def keep_neurons(parts: Sublayers, kept: Iterable[int]) -> None:
    """Leave the MLP neurons `kept`, in ascending order, in place.

    Raises:
        UserError: none are kept, or one does not exist.
    """
    index = _check(kept, parts.neurons, "neuron")
    for linear in parts.first:
        _take(linear, 0, index)
    _take(parts.last, 1, index)


def keep_heads(parts: Sublayers, kept: Iterable[int]) -> None:
    """Leave the query heads `kept`, in ascending order, in place, with the key-value heads that
    they read.

    Raises:
        UserError: none are kept, one does not exist, key-value heads would be read by unequal
            numbers of them, or attention holds weights of all heads (see `check_heads`).
    """
    index = _check(kept, parts.heads, "head")
    repeats = parts.repeats
    if len(index) < parts.heads:
        check_heads(parts)
    readers = [sum(head // repeats == group for head in index) for group in range(parts.kv_heads)]
    if len(set(readers) - {0}) != 1:
        raise UserError(
            f"query heads {index} would leave {readers} of them to the {parts.kv_heads} "
            f"key-value heads; keep the "
            f"same number of every {repeats} that follow each other, or none"
        )
    queries = _channels(index, parts.head_dim)
    keys = _channels([group for group, count in enumerate(readers) if count], parts.head_dim)
    _take(parts.query, 0, queries)
    _take(parts.key, 0, keys)
    _take(parts.value, 0, keys)
    _take(parts.out, 1, queries)
    _tell(parts)


def keep_groups(parts: Sublayers, kept: Iterable[int]) -> None:
    """Leave the key-value heads `kept` in place, each with all query heads that read it.

    Raises:
        UserError: as `keep_heads`.
    """
    keep_heads(parts, [group * parts.repeats + i for group in kept for i in range(parts.repeats)])


def can_lose_all_heads(parts: Sublayers) -> bool:
    """Whether `remove_heads` works: the output projection must stand outside the module that forms
    heads (BERT)."""
    return parts.out not in set(parts.attention.children())


def remove_heads(parts: Sublayers) -> None:
    """Take all heads of an attention: what it adds is the bias of its output projection.

    Raises:
        UserError: an architecture where that cannot be; a decoder counts positions by its
            attention's cache.
    """
    if not can_lose_all_heads(parts):
        raise UserError(
            f"{type(parts.attention).__name__} cannot lose all its heads; keep at least one"
        )
    for linear in (parts.query, parts.key, parts.value):
        _take(linear, 0, [])
    _take(parts.out, 1, [])
    kind = type(parts.attention)
    if not issubclass(kind, _NoHeads):
        parts.attention.__class__ = type(kind.__name__, (_NoHeads, kind), {})


class _NoHeads:
    """In place of an attention's own forward, which cannot form heads out of nothing."""

    def forward(self, hidden_states: torch.Tensor, *_, **__) -> tuple[torch.Tensor, None]:
        return hidden_states.new_zeros(*hidden_states.shape[:-1], 0), None


def remove_neurons(parts: Sublayers) -> None:
    """Take all neurons of an MLP: what it adds is the bias of its last matrix, if it has one."""
    for linear in parts.first:
        _take(linear, 0, [])
    _take(parts.last, 1, [])


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


def _tell(parts: Sublayers) -> None:
    """What attention modules of some architectures remember of their heads."""
    known = {
        "num_heads": parts.heads,
        "num_attention_heads": parts.heads,
        "num_key_value_heads": parts.kv_heads,
        "num_key_value_groups": parts.repeats,
        "all_head_size": parts.heads * parts.head_dim,
    }
    for name, value in known.items():
        if hasattr(parts.attention, name):
            setattr(parts.attention, name, value)


def _check(kept: Iterable[int], count: int, what: str) -> list[int]:
    index = sorted(set(kept))
    if not index:
        raise UserError(
            f"removing all {count} {what}s of a block is not possible; keep at least one"
        )
    if index[0] < 0 or index[-1] >= count:
        wrong = index[0] if index[0] < 0 else index[-1]
        raise UserError(f"{what} {wrong} does not exist; the block has {what}s 0 to {count - 1}")
    return index


def _channels(heads: list[int], head_dim: int) -> list[int]:
    return [head * head_dim + channel for head in heads for channel in range(head_dim)]


def _take(linear: nn.Linear, dim: int, index: list[int]) -> None:
    """Leave rows (`dim` 0, with the bias) or columns (1) of a linear."""
    linear.weight = take(linear.weight, dim, index)
    if dim == 0 and linear.bias is not None:
        linear.bias = take(linear.bias, 0, index)
    linear.out_features, linear.in_features = linear.weight.shape


def take(parameter: nn.Parameter, dim: int, index: Sequence[int]) -> nn.Parameter:
    """A new parameter of the entries `index` along `dim`; nothing else of the old one stays in
    memory."""
    chosen = parameter.detach().index_select(
        dim, torch.tensor(index, dtype=torch.int64, device=parameter.device)
    )
    return nn.Parameter(chosen.contiguous(), requires_grad=parameter.requires_grad)
