"""What a model costs to keep and to run: parameters, bytes, FLOPs, key-value cache and time."""

import copy
import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Cache, PreTrainedModel

from ..data.token_check import check_tokens
from ..errors import UserError
from ..notebook.contention import BUSY, watch
from ..notebook.speedup import Speedup, of_rates
from ..validation import is_whole

PROMPT_TOKENS = 16  # tokens read before a timed generation
NEW_TOKENS = 16  # tokens that `footprint` generates; `speedups` generates half as many
TIMED_PASSES = 3
# (structure of a model, shape and options of a pass) -> FLOPs, bytes of the cache
_COUNTED: dict[tuple, tuple[int, int]] = {}


@dataclass(frozen=True)
class Footprint:
    """The costs of one model at batch 1.

    parameters: number of parameters; tied ones count once.
    bytes: size of the weights as `save_model` stores them, zeros included.
    flops: FLOPs of a forward pass over `length` tokens, in the products of weights and of
        attention; a multiplication with its addition counts two.
    kv_cache_bytes: bytes that this pass leaves in the key-value cache; 0 for a model without one.
    latency: seconds of this pass, the median of three.
    tokens_per_second: speed of greedy generation, 16 tokens after 16; None for a model that does
        not generate.
    length: tokens of the pass.
    timing: "machine was busy: not timed" if other work disturbed the times, else None.

    `latency` and `tokens_per_second` are None if they were not measured.
    """

    parameters: int
    bytes: int
    flops: int
    kv_cache_bytes: int
    latency: float | None
    tokens_per_second: float | None
    length: int
    timing: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able record."""
        return dataclasses.asdict(self)


@torch.no_grad()
def footprint(model: PreTrainedModel, length: int = 512, *, speed: bool = True) -> Footprint:
    """Measure what a model costs, as it is and where it is; it is not changed.

    Args:
        model: a causal model or an encoder.
        length: tokens of the pass whose FLOPs, cache and latency are taken.
        speed: measure times too; they are left out where other work on the machine disturbed them.

    Raises:
        UserError: a length below 1, or beyond the model's positions.
    """
    if not is_whole(length) or length < 1:
        raise UserError(
            f"length {length!r} is not allowed; use a whole number of tokens, 1 or more"
        )
    tokens = torch.zeros(1, length, dtype=torch.int64)
    check_tokens(model, tokens, f"length {length}")
    flops, cache = _count(model, tokens)
    latency = tokens_per_second = timing = None
    if speed:
        with watch() as section:
            latency = _latency(model, tokens.to(model.device))
            if model.can_generate():
                prompt = torch.zeros(1, PROMPT_TOKENS, dtype=torch.int64)
                tokens_per_second = generation_speed(model, prompt, NEW_TOKENS)
        if section.busy:
            latency = tokens_per_second = None
            timing = BUSY
    return Footprint(
        parameters=model.num_parameters(),
        bytes=_stored_bytes(model),
        flops=flops,
        kv_cache_bytes=cache,
        latency=latency,
        tokens_per_second=tokens_per_second,
        length=length,
        timing=timing,
    )


def _stored_bytes(model: nn.Module) -> int:
    """Bytes of the weights; tensors that are tied are one object and count once."""
    stored = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    return sum(_tensor_bytes(tensor) for tensor in stored.values())


def _count(model: PreTrainedModel, tokens: torch.Tensor, **options) -> tuple[int, int]:
    """FLOPs of a pass over `tokens`, and bytes of the cache after it; `options` go into the pass.

    Both depend on structure and shapes alone, so models that differ only in their weights are
    counted once.
    """
    shapes = tuple(
        (name, *tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()
    )
    structure = (type(model), repr(model), model.config.to_json_string(), shapes)
    key = (*structure, *tokens.shape, *options.items())
    if key not in _COUNTED:
        _COUNTED[key] = _count_anew(model, tokens, options)
    return _COUNTED[key]


def _count_anew(model: nn.Module, tokens: torch.Tensor, options: Mapping) -> tuple[int, int]:
    """`_count` on a copy without data, on the meta device.

    The pass then costs no arithmetic. Attention takes the path of plain products there, which are
    counted; the fused attention of the CPU is not.
    """
    tensors = (*model.parameters(), *model.buffers())
    bare = copy.deepcopy(model, {id(tensor): _without_data(tensor) for tensor in tensors})
    with FlopCounterMode(display=False) as counter:
        output = bare(input_ids=tokens.to("meta"), **options)
    return counter.get_total_flops(), cache_bytes(output.get("past_key_values"))


def cache_bytes(cache: Cache | None) -> int:
    """Bytes of the keys and values of all rows of the batch that a cache holds; 0 for None."""
    layers = [layer for layer in getattr(cache, "layers", ()) if layer.is_initialized]
    return sum(_tensor_bytes(layer.keys) + _tensor_bytes(layer.values) for layer in layers)


def _tensor_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _without_data(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor or parameter of the same shape and dtype on the meta device."""
    bare = torch.empty_like(tensor, device="meta", requires_grad=False)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(bare, requires_grad=False)
    return bare


def _latency(model: nn.Module, tokens: torch.Tensor) -> float:
    """Seconds of a forward pass: the median of three, after one to warm up."""
    seconds = [timed_pass(model, tokens) for _ in range(TIMED_PASSES + 1)]
    return statistics.median(seconds[1:])


def timed_pass(model: nn.Module, tokens: torch.Tensor, **options) -> float:
    """Seconds of one forward pass.

    Args:
        model: what runs.
        tokens: int64 `[n, length]`, on the model's device.
        options: other arguments of the pass.
    """
    start = time.perf_counter()
    model(input_ids=tokens, **options)
    _wait_for(tokens.device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def generation_speed(model: PreTrainedModel, prompt: torch.Tensor, new_tokens: int = 16) -> float:
    """New tokens a second of greedy generation with a key-value cache.

    Two tokens are generated first to warm up; on a GPU, as many as are timed.

    Args:
        model: a causal model.
        prompt: int64 `[n, length]`; the time to read it counts.
        new_tokens: tokens generated for each of the n rows.

    Raises:
        UserError: a bad prompt, or fewer than one new token.
    """
    check_tokens(model, prompt, "prompt")
    if not isinstance(new_tokens, int) or new_tokens < 1:
        raise UserError(f"new_tokens must be a whole number of 1 or more, not {new_tokens!r}")
    prompt = prompt.to(model.device)
    _generate(model, prompt, {"cuda": new_tokens}.get(prompt.device.type, 2))
    start = time.perf_counter()
    generated = _generate(model, prompt, new_tokens)
    return (generated.numel() - prompt.numel()) / (time.perf_counter() - start)


def _generate(model: PreTrainedModel, prompt: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """Exactly so many greedy tokens after `prompt [n, length]`: `[n, length + new_tokens]`."""
    generated = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        pad_token_id=0,
        do_sample=False,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
    )
    _wait_for(model.device)
    return generated


@torch.no_grad()
def speedups(
    dense: PreTrainedModel, smaller: PreTrainedModel, tokens: torch.Tensor, rounds: int = 6
) -> dict[str, Speedup]:
    """How many times as fast as the dense model a smaller one is, both timed in turn.

    Args:
        dense: a causal model.
        smaller: a causal model of fewer FLOPs; their ratio bounds the speed-up that is believed.
        tokens: int64 `[n, length]`, at least 16 in a row.
        rounds: how often each is timed.

    Returns:
        `reads`: the first row as a prompt, logits of its last token alone, the fastest of three
            passes.
        `writes`: greedy generation of 8 tokens after the first 16, all n rows at a time.

    Raises:
        UserError: bad tokens, too few of them, or no round.
    """
    models = (dense, smaller)
    _check_speedups(models, tokens, rounds)
    # Rates of the dense and of the smaller model, one a round.
    reads: tuple[list[float], list[float]] = ([], [])
    writes: tuple[list[float], list[float]] = ([], [])
    prompts = tokens[:, :PROMPT_TOKENS]
    busy = False
    for _ in range(rounds):
        with watch() as section:
            for index, model in enumerate(models):
                reads[index].append(_reading_speed(model, tokens[:1]))
                writes[index].append(generation_speed(model, prompts, NEW_TOKENS // 2))
        busy = busy or section.busy
    flops = [_flops(model, tokens) for model in models]
    work = {
        "reads": f"reads a prompt of {tokens.shape[1]} tokens",
        "writes": f"writes {len(tokens)} sequences at a time",
    }
    how = {"reads": "each the fastest of three passes", "writes": "8 tokens after 16"}
    speedup_of = {}
    for verb, rates in {"reads": reads, "writes": writes}.items():
        medians = [f"{statistics.median(each):.3g}" for each in rates]
        detail = f"{medians[0]} tokens a second dense, {medians[1]} smaller; {how[verb]}"
        ratio = flops[0][verb] / flops[1][verb]
        speedup_of[verb] = of_rates(
            *rates, flops_ratio=ratio, busy=busy, what=work[verb], detail=detail
        )
    return speedup_of


def _check_speedups(models: Sequence[nn.Module], tokens: torch.Tensor, rounds: int) -> None:
    for model in models:
        check_tokens(model, tokens, "tokens")
    if tokens.shape[1] < PROMPT_TOKENS:
        raise UserError(
            f"tokens {list(tokens.shape)} are too short; use rows of {PROMPT_TOKENS} or more"
        )
    if rounds < 1:
        raise UserError(f"rounds {rounds} is not allowed; use 1 or more")


def _reading_speed(model: nn.Module, prompt: torch.Tensor) -> float:
    """Tokens a second of reading `prompt [1, length]`: the fastest of three passes."""
    prompt = prompt.to(model.device)
    seconds = min(timed_pass(model, prompt, logits_to_keep=1) for _ in range(TIMED_PASSES))
    return prompt.shape[1] / seconds


def _flops(model: PreTrainedModel, tokens: torch.Tensor) -> dict[str, int]:
    """FLOPs of what `speedups` times, for one row. Attention to the cache is left out."""
    prompt = _count(model, tokens[:1, :PROMPT_TOKENS], logits_to_keep=1)[0]
    step = _count(model, tokens[:1, :1])[0]
    return {
        "reads": _count(model, tokens[:1], logits_to_keep=1)[0],
        "writes": prompt + (NEW_TOKENS // 2 - 1) * step,
    }
