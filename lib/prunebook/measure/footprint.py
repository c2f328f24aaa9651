"""What a model costs to keep and to run, measured: parameters, bytes, FLOPs, key-value cache,
time."""

import copy
import dataclasses
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..data.windows import check_tokens
from ..errors import UserError
from ..notebook.contention import BUSY, watch
from ..notebook.speedup import Speedup, of_rates

_PROMPT = 16
_NEW_TOKENS = 16
_RUNS = 3
_COUNTED: dict[tuple, tuple[int, int]] = {}  # structure and pass -> FLOPs and bytes of the cache


@dataclass(frozen=True)
class Footprint:
    """The costs of one model, batch 1.

    `parameters`, tied ones once. `bytes` of the weights as `save_model` stores them, zeros
    included. `flops` of a forward pass over `length` tokens: two for each multiplication with its
    addition, in the products of weights and of attention. `kv_cache_bytes` that such a pass leaves
    in the key-value cache, 0 without one. `latency` of it in seconds, the median of three.
    `tokens_per_second` of greedy generation, 16 tokens after 16. These two are None if they were
    not measured, the second also for a model that does not generate. `timing` says so if other work
    disturbed
    them: "machine was busy: not timed"; else it is None.
    """

    parameters: int
    bytes: int
    flops: int
    kv_cache_bytes: int
    latency: float | None
    tokens_per_second: float | None
    length: int
    timing: str | None = None

    def to_dict(self) -> dict:
        """JSON-able record."""
        return dataclasses.asdict(self)


@torch.no_grad()
def footprint(model, length: int = 512, *, speed: bool = True) -> Footprint:
    """Measure what a model, causal or an encoder, costs as it is and where it is; it is not
    changed.

    Args:
        length: tokens of the pass whose FLOPs, cache and latency are taken.
        speed: measure times too; they are left out where other work on the machine disturbed them.

    Raises:
        UserError: a length below 1, or beyond the model's positions.
    """
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
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
                prompt = torch.zeros(1, _PROMPT, dtype=torch.int64)
                tokens_per_second = generation_speed(model, prompt, _NEW_TOKENS)
        if section.busy:
            latency = tokens_per_second = None
            timing = BUSY
    # tied ones are one
    stored = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    return Footprint(
        model.num_parameters(), size, flops, cache, latency, tokens_per_second, length, timing
    )


def _count(model: nn.Module, tokens: torch.Tensor, **options) -> tuple[int, int]:
    """FLOPs of a pass over `tokens`, and bytes of the cache after it; `options` go into the pass.

    Both depend on structure and shapes alone, so models that differ only in their weights are
    counted once.
    """
    shapes = tuple(
        (name, *tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()
    )
    structure = (type(model), repr(model), model.config.to_json_string(), shapes)
    asked = (*structure, *tokens.shape, *options.items())
    if asked not in _COUNTED:
        _COUNTED[asked] = _count_anew(model, tokens, options)
    return _COUNTED[asked]


def _count_anew(model: nn.Module, tokens: torch.Tensor, options: Mapping) -> tuple[int, int]:
    """`_count` on a copy without data: it costs no arithmetic, and there attention takes the path
    of plain products, which are counted (the fused one of the CPU is not)."""
    tensors = (*model.parameters(), *model.buffers())
    bare = copy.deepcopy(model, {id(tensor): _without_data(tensor) for tensor in tensors})
    with FlopCounterMode(display=False) as counter:
        output = bare(input_ids=tokens.to("meta"), **options)
    return counter.get_total_flops(), cache_bytes(output.get("past_key_values"))


def cache_bytes(cache) -> int:
    """Bytes of the keys and values that a transformers cache holds, of all rows of its batch; 0 for
    None."""
    layers = getattr(cache, "layers", ())
    kept = [
        tensor for layer in layers if layer.is_initialized for tensor in (layer.keys, layer.values)
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in kept)


def _without_data(tensor: torch.Tensor) -> torch.Tensor:
    bare = torch.empty_like(tensor, device="meta", requires_grad=False)
    return nn.Parameter(bare, requires_grad=False) if isinstance(tensor, nn.Parameter) else bare


def _latency(model: nn.Module, tokens: torch.Tensor) -> float:
    """Seconds of a forward pass, the median of three after one to warm up."""
    return statistics.median([timed_pass(model, tokens) for _ in range(_RUNS + 1)][1:])


def timed_pass(model: nn.Module, tokens: torch.Tensor, **options) -> float:
    """Seconds of one forward pass over `tokens [n, length]`, on the model's device; `options` go
    into it."""
    start = time.perf_counter()
    model(input_ids=tokens, **options)
    if tokens.device.type == "cuda":
        torch.cuda.synchronize(tokens.device)
    return time.perf_counter() - start


@torch.no_grad()
def generation_speed(model, prompt: torch.Tensor, new_tokens: int = 16) -> float:
    """New tokens a second of greedy generation with a key-value cache, after two tokens to warm up;
    on a GPU after as many as are timed.

    Args:
        prompt: int64 `[n, length]`; reading it counts.
        new_tokens: generated for each of the n rows.

    Raises:
        UserError: a bad prompt, or fewer than one new token.
    """
    check_tokens(model, prompt, "prompt")
    if not isinstance(new_tokens, int) or new_tokens < 1:
        raise UserError(f"new_tokens must be a whole number of 1 or more, not {new_tokens!r}")
    prompt = prompt.to(model.device)
    _generate(model, prompt, new_tokens if prompt.device.type == "cuda" else 2)
    start = time.perf_counter()
    generated = _generate(model, prompt, new_tokens)
    return (generated.numel() - prompt.numel()) / (time.perf_counter() - start)


def _generate(model, prompt: torch.Tensor, new_tokens: int) -> torch.Tensor:
    generated = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        pad_token_id=0,
        do_sample=False,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
    )
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return generated


@torch.no_grad()
def speedups(
    dense: nn.Module, smaller: nn.Module, tokens: torch.Tensor, rounds: int = 6
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
    for model in (dense, smaller):
        check_tokens(model, tokens, "tokens")
    if tokens.shape[1] < _PROMPT:
        raise UserError(f"tokens {list(tokens.shape)} are too short; use rows of {_PROMPT} or more")
    if rounds < 1:
        raise UserError(f"rounds {rounds} is not allowed; use 1 or more")
    reads: tuple[list, list] = ([], [])  # rates of the dense and of the smaller model
    writes: tuple[list, list] = ([], [])
    busy = False
    for _ in range(rounds):
        with watch() as section:
            for index, model in enumerate((dense, smaller)):
                reads[index].append(_reading_speed(model, tokens[:1]))
                writes[index].append(generation_speed(model, tokens[:, :_PROMPT], _NEW_TOKENS // 2))
        busy = busy or section.busy
    dense_flops = _flops(dense, tokens)
    smaller_flops = _flops(smaller, tokens)
    what = {
        "reads": f"reads a prompt of {tokens.shape[1]} tokens",
        "writes": f"writes {len(tokens)} sequences at a time",
    }
    how = {"reads": "each the fastest of three passes", "writes": "8 tokens after 16"}
    found = {}
    for verb, rates in {"reads": reads, "writes": writes}.items():
        medians = [f"{statistics.median(each):.3g}" for each in rates]
        detail = f"{medians[0]} tokens a second dense, {medians[1]} smaller; {how[verb]}"
        ratio = dense_flops[verb] / smaller_flops[verb]
        found[verb] = of_rates(*rates, flops_ratio=ratio, busy=busy, what=what[verb], detail=detail)
    return found


def _reading_speed(model: nn.Module, prompt: torch.Tensor) -> float:
    """Tokens a second of reading `prompt [1, length]`: the fastest of three passes."""
    prompt = prompt.to(model.device)
    seconds = min(timed_pass(model, prompt, logits_to_keep=1) for _ in range(_RUNS))
    return prompt.shape[1] / seconds


def _flops(model: nn.Module, tokens: torch.Tensor) -> dict[str, int]:
    """FLOPs of what `speedups` times, for one row. Attention to the cache is left out."""
    prompt = _count(model, tokens[:1, :_PROMPT], logits_to_keep=1)[0]
    step = _count(model, tokens[:1, :1])[0]
    return {
        "reads": _count(model, tokens[:1], logits_to_keep=1)[0],
        "writes": prompt + (_NEW_TOKENS // 2 - 1) * step,
    }
