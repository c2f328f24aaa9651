"""What tests read of a whole model: its logits, and the weights of its linears."""

import torch

from prunebook.models.anatomy import find_blocks, weight_of


def logits(model, tokens, **options):
    """Logits `[windows, length, vocabulary]` of whole windows, without gradients."""
    with torch.no_grad():
        return model(input_ids=tokens, **options).logits


def linear_weights(model):
    """Name -> weight `[out, in]` of each linear of the blocks; the model's own, not a copy."""
    return {
        name: weight_of(linear)
        for block in find_blocks(model)
        for name, linear in block.linears.items()
    }


def inputs_of_linears(model, tokens):
    """Name -> input of each linear of the blocks in one ordinary forward pass."""
    inputs = {}
    handles = [
        linear.register_forward_pre_hook(
            lambda _, arguments, name=name: inputs.__setitem__(name, arguments[0])
        )
        for block in find_blocks(model)
        for name, linear in block.linears.items()
    ]
    logits(model, tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    return inputs


def greedy(model, prompt, new=8, **options):
    """The prompt and `new` greedy tokens behind it, `[n, length + new]`."""
    return model.generate(prompt, max_new_tokens=new, do_sample=False, pad_token_id=0, **options)
