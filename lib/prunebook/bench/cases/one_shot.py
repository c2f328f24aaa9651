"""Wanda on blocks of a random 7B model: how much time goes beyond the forward passes."""

import copy
from functools import partial
from itertools import product

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ...criteria.wanda import wanda_score
from ...methods import prune
from ...models.anatomy import find_blocks, weight_of
from ...passes.sequential import walk
from ...passes.statistics import InputNorm
from ...sparsity.patterns import count_removed
from .. import work
from ..case import Case, Operands, Provider
from ..record import CONTROL

KERNEL = "one-shot-wanda"
_SPARSITY = 0.5
_PASSES = 2  # passes over each block: one for the statistics, one for its outputs
_BY_CHANCE = 1e-3  # allowed share of drawn weights that are zero already
_VOCABULARY = 1024  # small, because embedding and head are not pruned
_LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32}
_LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def cases() -> list[Case]:
    """The cases of this family."""
    return [case(2, 64, 2048, _LLAMA_7B)]


def case(blocks: int, windows: int, length: int, sizes: dict[str, int]) -> Case:
    """The case of one random Llama.

    Args:
        blocks: number of blocks.
        windows: number of calibration windows.
        length: tokens of each window.
        sizes: sizes of the blocks, by their names in `LlamaConfig`.
    """
    hidden = sizes["hidden_size"]
    neurons = sizes["intermediate_size"]
    parameters = blocks * (4 * hidden**2 + 3 * hidden * neurons)
    providers = [
        Provider("prunebook", _ours, prepare=_assembled, captures=False),
        Provider(
            "torch.sort and scatter",
            _sorted,
            prepare=_assembled,
            captures=False,
            note="the recipe of Wanda's official code, over the same forward passes",
        ),
        Provider(
            "the forward passes alone",
            _passes,
            prepare=_assembled,
            captures=False,
            role=CONTROL,
            note="prunes nothing",
        ),
    ]
    return Case(
        KERNEL,
        {"blocks": blocks, "windows": windows, "length": length},
        work.one_shot(parameters, windows * length, _PASSES),
        partial(_operands, blocks, windows, length, sizes),
        lambda o: _SPARSITY,
        _error,
        providers,
        settings={"sparsity": _SPARSITY},
        allowed=_BY_CHANCE,
        written=tuple(
            f"model.layers.{i}.{linear}.weight" for i, linear in product(range(blocks), _LINEARS)
        ),
        seconds=90,
    )


def _operands(
    blocks: int, windows: int, length: int, sizes: dict[str, int], generator: torch.Generator
) -> Operands:
    """The model's tensors under their names, calibration tokens, and the model itself.

    The model stands in a tuple, so that it is not copied.
    """
    config = LlamaConfig(
        vocab_size=_VOCABULARY, num_hidden_layers=blocks, max_position_embeddings=length, **sizes
    )
    # On the meta device nothing is drawn from the device's own generator.
    with torch.device("meta"):
        model = LlamaForCausalLM(config).bfloat16().eval().requires_grad_(False)
    model.to_empty(device=generator.device)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.normal_(0, 0.02, generator=generator)
        else:
            parameter.fill_(1)
    # The angles of the rotary embedding are no parameters: they are computed when it is built.
    with torch.device(generator.device):
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    tokens = torch.randint(
        _VOCABULARY, (windows, length), generator=generator, device=generator.device
    )
    return {"tokens": tokens, "model": (model,), **model.state_dict()}


def _assembled(o: Operands) -> Operands:
    """The model with these very tensors as its weights, and the tokens on the CPU."""
    model = copy.deepcopy(o["model"][0])
    model.load_state_dict({name: o[name] for name in model.state_dict()}, assign=True)
    return {"tokens": o["tokens"].cpu(), "model": model}


def _error(model: nn.Module, sparsity: float) -> float:
    """The largest difference between a linear's share of zeros and the sparsity asked for."""
    weights = []
    for block in find_blocks(model):
        weights += map(weight_of, block.linears.values())
    return max(abs((w == 0).double().mean().item() - sparsity) for w in weights)


def _ours(o: Operands) -> nn.Module:
    prune(o["model"], "wanda", sparsity=_SPARSITY, calibration=o["tokens"])
    return o["model"]


@torch.no_grad()
def _sorted(o: Operands) -> nn.Module:
    for block in walk(o["model"], o["tokens"]):
        for name, statistic in block.collect(InputNorm).items():
            weight = weight_of(block.linears[name])
            score = wanda_score(weight, statistic.norm()).dense()
            removed = count_removed(score.shape[1], _SPARSITY)
            lowest = torch.sort(score, dim=-1, stable=True).indices[:, :removed]
            mask = torch.zeros_like(score, dtype=torch.bool).scatter_(1, lowest, True)
            weight.masked_fill_(mask, 0)
    return o["model"]


@torch.no_grad()
def _passes(o: Operands) -> nn.Module:
    for block in walk(o["model"], o["tokens"]):
        block.collect(_Nothing)
    return o["model"]


class _Nothing:
    """A statistic that keeps nothing."""

    def __init__(self, width: int, device: torch.device):
        pass

    def update(self, inputs: torch.Tensor) -> None:
        pass

    def is_finite(self) -> bool:
        return True
