"""How the configuration of a model says what is left in its blocks: in its own fields, or block by
block."""

import copy

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from .sublayers import every_sublayers, keep_heads, keep_neurons, remove_heads, remove_neurons

# key in config.json for what the architecture's own configuration cannot say
WIDTHS = "prunebook_widths"


def settle(model: nn.Module) -> bool:
    """Let the configuration say what is left in the blocks, so that the model can be saved.

    The architecture's own fields do where they can (all blocks alike, and a fresh model of that
    configuration has the same shapes); else the counts of every block go under `prunebook_widths`,
    which `load_model` reads.

    Returns:
        Whether plain `transformers` can reload it.
    """
    parts = every_sublayers(model)
    counts = {
        name: [getattr(part, name) for part in parts] for name in ("heads", "kv_heads", "neurons")
    }
    plain = copy.deepcopy(model.config)
    if hasattr(plain, WIDTHS):
        delattr(plain, WIDTHS)
    fields = {
        "num_attention_heads": parts[0].heads,
        "num_key_value_heads": parts[0].kv_heads,
        "head_dim": parts[0].head_dim,
        "intermediate_size": parts[0].neurons,
        "ffn_dim": parts[0].neurons,
    }
    for name, value in fields.items():
        if hasattr(plain, name):
            setattr(plain, name, value)
    if _describes(plain, model):
        model.config.__dict__.clear()  # the blocks hold this very object
        model.config.__dict__.update(plain.__dict__)
        return True
    setattr(model.config, WIDTHS, counts)
    return False


def _describes(config, model: nn.Module) -> bool:
    try:
        config.validate()  # as saving does
        with torch.device("meta"):
            fresh = type(model)(copy.deepcopy(config))
    # e.g. heads that do not divide the width, or none
    except (ValueError, ArithmeticError, StrictDataclassError):
        return False
    shapes = {name: parameter.shape for name, parameter in fresh.named_parameters()}
    return shapes == {name: parameter.shape for name, parameter in model.named_parameters()}


def resize(model: nn.Module) -> None:
    """Bring the blocks of a new model to the widths that its configuration has under
    `prunebook_widths`.

    Raises:
        ValueError: widths that are none of this model.
    """
    widths = getattr(model.config, WIDTHS)
    try:
        counts = [widths[name] for name in ("heads", "kv_heads", "neurons")]
        for parts, heads, kv_heads, neurons in zip(every_sublayers(model), *counts, strict=True):
            if heads == 0:
                remove_heads(parts)
            else:
                left = heads // kv_heads
                keep_heads(
                    parts,
                    [group * parts.repeats + i for group in range(kv_heads) for i in range(left)],
                )
            if neurons == 0:
                remove_neurons(parts)
            else:
                keep_neurons(parts, range(neurons))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{WIDTHS} in config.json does not fit its blocks") from error
