"""Keyformer, d-matrix-ai/keyformer-llm: the attention of its three models on random tensors.

The default attention of GPT-J, Cerebras-GPT and MPT runs as it is, its text taken out of modules
that import einops, ONNX exports and names that transformers no longer has. Objects with the few
attributes that it reads stand in for the attention modules, and a function for `rearrange`; MPT's
gets position biases of 0. `gumbel_softmax` is that of torch, given the exponential draws that our
noise is made of, so that both have the same noise.

In these files the token that leaves the recent window is lost. Here it is put back first, with its
score, so that the same tokens must stay; then the code is compared as it is. With the token put
back it is also compared under torch's own noise, and without noise on a batch of two, for which it
has one set.

A set is what one head keeps outside the recent window after one token.
"""

import ast
import contextlib
import copy
import math
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from prunebook.caches.keyformer import KeyformerCache
from prunebook.kernels.attention.noise import stream_of, uniform

from .common import relative_difference
from .h2o import compare_sets, dense

REPOSITORY = "https://github.com/d-matrix-ai/keyformer-llm"
COMMIT = "f327831"
_FILES = {
    "gpt_j": ("models/gptj-keyformer-lib/modeling_gptj.py", "_attn"),
    "cerebras_gpt": ("models/cerebras-keyformer-lib/modeling_gpt2.py", "_attn"),
    "mpt": ("models/mpt-keyformer-lib/attention.py", "scaled_multihead_dot_product_attention"),
}
_HEADS = 4
_WIDTH = 16
_PROMPT = 20
_LENGTH = 100
# Percentages, as the official script has them.
_CACHE = 60
_RECENT = 30
_NEW_TOKENS = _LENGTH - _PROMPT
_WINDOW = _PROMPT * _CACHE // 100 * _RECENT // 100


def parity(folder: str) -> dict:
    """Scores, outputs and the tokens that stay, by the official attention and by ours.

    Args:
        folder: a checkout of the repository.
    """
    compared = {}
    for name, (path, function) in _FILES.items():
        official = _official_function(Path(folder) / path, function)
        compared[name] = {
            "with_the_lost_token_put_back": _compare(official, put_back=True),
            "the_same_without_noise": _compare(official, put_back=True, noise=False),
            "as_it_is": _compare(official, put_back=False),
            "put_back_with_noise_of_torch": _compare(official, put_back=True, own_noise=True),
            "put_back_for_a_batch_of_two": _compare(official, put_back=True, noise=False, rows=2),
        }
    compared["ours_with_another_seed"] = _compare_seeds()
    return compared


def _official_function(path: Path, name: str) -> Callable:
    """The attention of one official file, as a function of an object for its module and tensors."""
    node = next(
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    names = {"torch": torch, "nn": nn, "copy": copy, "math": math, "rearrange": _rearrange}
    exec(compile(ast.Module([node], []), path, "exec"), names)
    if name == "_attn":
        return names[name]
    return _with_flat_heads(names[name])


def _rearrange(tensor: torch.Tensor, pattern: str, h: int = 0) -> torch.Tensor:
    """`einops.rearrange` for the patterns of the attention of MPT."""
    if pattern == "b h s d -> b s (h d)":
        return tensor.transpose(1, 2).flatten(2)
    heads = tensor.unflatten(2, (h, -1))
    dimensions = {"b s (h d) -> b h s d": (0, 2, 1, 3), "b s (h d) -> b h d s": (0, 2, 3, 1)}
    return heads.permute(dimensions[pattern])


def _with_flat_heads(function: Callable) -> Callable:
    """The attention of MPT with arguments and results of the other two."""

    def attention(module, query, key, value, **options):
        flat = [x.transpose(1, 2).flatten(2) for x in (query, key, value)]
        bias = torch.zeros(1, 1, 1, key.shape[2])
        output, _, _, _, score, mask, _, required, count = function(
            *flat, _HEADS, past_key_value=(), attn_bias=bias, is_causal=True, **options
        )
        output = output.unflatten(2, (_HEADS, -1)).transpose(1, 2)
        return output, None, score, mask, count, required

    return attention


class _Official:
    """The official attention from token to token.

    Args:
        function: as from `_official_function`.
        put_back: put back what leaves the recent window, with its score.
    """

    def __init__(self, function: Callable, put_back: bool):
        self.function = function
        self.put_back = put_back
        self.state = {"score_fn": None, "token_discard_mask": None}
        self.state |= {"itr_count": 0, "req_tokens": None}
        self.module = SimpleNamespace(
            bias=torch.ones(1, 1, _LENGTH, _LENGTH).tril().bool(),
            scale_attn=torch.tensor(_WIDTH**0.5),
            attn_dropout=nn.Identity(),
            scale_attn_weights=True,
            scale_attn_by_inverse_layer_idx=False,
            is_cross_attention=False,
        )

    def __call__(self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor):
        """The output of new queries over all keys so far."""
        before = self.state["score_fn"]
        options = {"keyformer": True, "kv_cache": _CACHE, "recent": _RECENT}
        options |= {"tau_init": 1.0, "tau_delta": 1 / _NEW_TOKENS}
        with _recorded_softmax() as weights:
            output, _, score, mask, count, required = self.function(
                self.module, query, keys, values, **options, **self.state
            )
        if self.put_back:
            # The mask has a column for the next token; the score was set to 0 where it is 0.
            mask[..., -_WINDOW - 1] = 1
            score[:, -_WINDOW] = weights[0].sum(0).sum(1)[:, -_WINDOW]
            if before is not None:
                score[:, -_WINDOW] += before[:, 1 - _WINDOW]
        self.state = {"score_fn": score, "token_discard_mask": mask}
        self.state |= {"itr_count": count, "req_tokens": required}
        return output

    @property
    def kept(self) -> torch.Tensor:
        """Which tokens the next query sees but for itself: bool `[heads, tokens]`."""
        return self.state["token_discard_mask"][0, :, 0, :-1] > 0


@contextlib.contextmanager
def _recorded_softmax() -> Iterator[list[torch.Tensor]]:
    """While open, what `gumbel_softmax` returns is kept."""
    returned = []

    def recording(*arguments, original=nn.functional.gumbel_softmax, **options):
        returned.append(original(*arguments, **options))
        return returned[-1]

    with unittest.mock.patch.object(nn.functional, "gumbel_softmax", recording):
        yield returned


def _draws(noise: bool):
    """A context in which exponential draws are those of our noise, or 1, whose noise is 0."""
    stream = stream_of(0, 0)

    def exponential(tensor: torch.Tensor) -> torch.Tensor:
        _, heads, queries, keys = tensor.shape
        if not noise:
            return tensor.fill_(1)
        positions = torch.arange(keys)
        of_queries = positions[-queries:, None]
        drawn = uniform(stream, torch.arange(heads).view(-1, 1, 1), of_queries, positions)
        return tensor.copy_(-drawn.log())

    return unittest.mock.patch.object(torch.Tensor, "exponential_", exponential)


def _tensors(rows: int) -> list[torch.Tensor]:
    """Random queries, keys and values `[rows, heads, length, width]`, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    shape = (rows, _HEADS, _LENGTH, _WIDTH)
    query, keys, values = (torch.randn(shape, generator=generator) for _ in range(3))
    # Sharp attention, and the newest keys are larger, so that generated tokens come to stay.
    growth = torch.linspace(1, 2, _LENGTH)[:, None]
    return [2 * query, growth * keys, values]


def _our_steps(tensors: list[torch.Tensor], noise: bool, seed: int = 0) -> Iterator:
    """The layer of ours and its output after the prompt, where there is none, and each token."""
    cache = KeyformerCache(
        _CACHE / 100, _RECENT / 100, new_tokens=_NEW_TOKENS, noise=noise, seed=seed
    )
    layer = cache.layer_class_to_replicate()
    valid = torch.ones(len(tensors[0]), _PROMPT, dtype=torch.bool)
    scaling = _WIDTH**-0.5
    layer.read_prompt(*(x[:, :, :_PROMPT] for x in tensors), valid, scaling, 0)
    yield layer, None
    for index in range(_PROMPT, _LENGTH):
        token = (x[:, :, index : index + 1] for x in tensors)
        yield layer, layer.decode(*token, valid[:, :1], scaling).transpose(1, 2)


def _compare(
    function: Callable, put_back: bool, noise: bool = True, own_noise: bool = False, rows: int = 1
) -> dict:
    """Sets, scores and outputs of one official attention beside ours.

    Args:
        function: as from `_official_function`.
        put_back: put back what leaves the recent window of the official code.
        noise: False for zeta = 0.
        own_noise: leave the official code the noise of torch.
        rows: rows of the batch.
    """
    tensors = _tensors(rows)
    official = _Official(function, put_back)
    draws = _draws(noise)
    if own_noise:
        torch.manual_seed(0)
        draws = contextlib.nullcontext()
    pairs = []
    scores = []
    outputs = []
    steps = _our_steps(tensors, noise)
    for length, (layer, our_output) in enumerate(steps, _PROMPT):
        start = length - 1
        if length == _PROMPT:
            start = 0
        query = tensors[0][:, :, start:length]
        with draws:
            output = official(query, *(x[:, :, :length] for x in tensors[1:]))
        for row in range(rows):
            held, our_scores = dense(layer, row)
            pairs.append((held[:, :-_WINDOW], official.kept[:, :-_WINDOW]))
        scores.append(relative_difference(our_scores, official.state["score_fn"]))
        if our_output is not None:
            outputs.append(relative_difference(our_output, output))
    late = sum(int(theirs[:, _PROMPT:].sum()) for _, theirs in pairs)
    count = sum(int(theirs.sum()) for _, theirs in pairs)
    compared = compare_sets(pairs, _PROMPT) | {"official_tokens_after_the_prompt": late / count}
    if rows > 1:
        # The official scores are sums over the rows.
        return compared
    differences = {"scores_difference": max(scores), "outputs_difference": max(outputs)}
    return differences | compared


def _compare_seeds() -> dict:
    """Sets of ours under two seeds: what noise alone does."""
    tensors = _tensors(1)
    both = zip(_our_steps(tensors, True), _our_steps(tensors, True, seed=1), strict=True)
    pairs = [
        (dense(one)[0][:, :-_WINDOW], dense(other)[0][:, :-_WINDOW])
        for (one, _), (other, _) in both
    ]
    return compare_sets(pairs, _PROMPT)
