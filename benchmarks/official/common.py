"""What the adapters share: official layers that can be called, single linears with their inputs,
tiny models, agreement."""

import contextlib
import importlib
import io
import sys
import types
import unittest.mock
from collections.abc import Callable, Iterator

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prunebook.models.anatomy import find_blocks


def adapt(model, length: int) -> None:
    """Let decoder layers be called as the official code calls them: positions inside, a tuple
    back."""
    torch.cuda.synchronize = lambda *_: None
    torch.cuda.empty_cache = lambda: None
    model.seqlen = length
    model.hf_device_map = {}
    positions = torch.arange(length)[None]
    rotary = model.model.rotary_emb(model.model.embed_tokens(positions), positions)
    for layer in model.model.layers:

        def forward(hidden, attention_mask=None, position_ids=None, inner=layer.forward, **_):
            return (inner(hidden, attention_mask=attention_mask, position_embeddings=rotary),)

        layer.forward = forward


def official_module(folder: str, name: str):
    """A module of a repository's folder; what it prints on import is dropped."""
    sys.path.insert(0, folder)
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module(name)


def loader(tokens: torch.Tensor) -> Callable:
    """Stands in for the repositories' `get_loaders`: our tokens, a window at a time."""
    return lambda *_, **__: ([(row[None], None) for row in tokens], None)


def arguments(**values) -> types.SimpleNamespace:
    """A repository's parsed command line."""
    return types.SimpleNamespace(**values)


def of_one_layer(
    prune, layer: torch.nn.Module, inputs: torch.Tensor, outputs
) -> types.SimpleNamespace:
    """A model of one layer for the functions of a repository's module `prune`, which from now on
    finds the layer's `inputs [n, length, in]` in place of calibration text and a list or tensor for
    `outputs`."""
    prune.get_loaders = lambda *_, **__: (None, None)
    prune.prepare_calibration_input = lambda *_: (inputs.clone(), outputs, None, None)
    return types.SimpleNamespace(
        config=types.SimpleNamespace(use_cache=False),
        model=types.SimpleNamespace(layers=[layer]),
        hf_device_map={},
    )


def linears_with_inputs(
    model, tokens: torch.Tensor
) -> Iterator[tuple[str, torch.nn.Linear, torch.Tensor]]:
    """Name, linear and its inputs `[n, length, in]` for the first, a middle and the last block."""
    blocks = find_blocks(model)
    for block in (blocks[0], blocks[len(blocks) // 2], blocks[-1]):
        seen = {name: [] for name in block.linears}
        handles = [
            linear.register_forward_pre_hook(
                lambda _, inputs, kept=seen[name]: kept.append(inputs[0].clone())
            )
            for name, linear in block.linears.items()
        ]
        for row in tokens:
            model(row[None], use_cache=False)
        for handle in handles:
            handle.remove()
        for name, linear in block.linears.items():
            yield name, linear, torch.cat(seen[name])


def in_float64(function, *arguments):
    """Call with every `.float()` and every new tensor in double precision: what is left is not
    rounding."""
    torch.set_default_dtype(torch.float64)
    try:
        with unittest.mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            return function(*arguments)
    finally:
        torch.set_default_dtype(torch.float32)


def agreement(ours: dict, theirs: dict) -> dict:
    """Fraction of equal mask bits overall and in the first block."""
    equal = {
        name: ((ours[name] == 0) == (theirs[name] == 0)).float().mean().item() for name in ours
    }
    sizes = {name: ours[name].numel() for name in ours}
    first = [name for name in ours if ".layers.0." in name]

    def mean(names):
        return sum(equal[n] * sizes[n] for n in names) / sum(sizes[n] for n in names)

    return {
        "mask_bits_equal": mean(list(ours)),
        "first_block_mask_bits_equal": mean(first),
        "first_block_bit_equal": all(torch.equal(ours[n], theirs[n]) for n in first),
    }


def stand_in(name: str, **members) -> types.ModuleType:
    """An empty module of that name in place of one that is not needed, with some members."""
    module = types.ModuleType(name)
    module.__path__ = []
    module.__dict__.update(members)
    sys.modules[name] = module
    return module


def tiny_llama(dtype: torch.dtype = torch.float32, **changes):
    """A random Llama of two blocks with as many key-value heads as query heads.

    Args:
        dtype: dtype of the weights.
        changes: entries of its `LlamaConfig` that are others.
    """
    sizes = {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes | changes)).to(dtype).eval()


def tiny_tokens(samples: int, length: int, vocabulary: int = 128) -> torch.Tensor:
    """Random tokens `[samples, length]`, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (samples, length), generator=generator)


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference of two tensors, over the largest magnitude of theirs."""
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes {tuple(ours.shape)} and {tuple(theirs.shape)} differ")
    difference = (ours.double() - theirs.double()).abs().max()
    return (difference / theirs.double().abs().max()).item()


def equal_share(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Fraction of the entries of two tensors, e.g. masks, that are equal."""
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes {tuple(ours.shape)} and {tuple(theirs.shape)} differ")
    return (ours == theirs).double().mean().item()
