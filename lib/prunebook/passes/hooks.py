"""Hooks on modules and on tensors: the one place of the library that registers them.

A hook sees, or changes, what enters and leaves a module during a pass. Each context manager here
registers its hooks on entry and removes all of them on exit, also after an error, so that no model
is left with a hook that its owner does not know of.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

PreHook = Callable[[nn.Module, tuple], Any]
Hook = Callable[[nn.Module, tuple, Any], Any]


@contextlib.contextmanager
def forward_pre_hooks(hooks: Iterable[tuple[nn.Module, PreHook]]) -> Iterator[None]:
    """Call hooks before the forward of their modules while the context is open.

    Args:
        hooks: pairs of a module and `hook(module, inputs)`, registered in this order; a tuple that
            a hook returns replaces the positional inputs.
    """
    with _removed_at_exit() as handles:
        for module, hook in hooks:
            handles.append(module.register_forward_pre_hook(hook))
        yield


@contextlib.contextmanager
def forward_hooks(
    hooks: Iterable[tuple[nn.Module, Hook]], *, always_call: bool = False
) -> Iterator[None]:
    """Call hooks after the forward of their modules while the context is open.

    Args:
        hooks: pairs of a module and `hook(module, inputs, output)`, registered in this order; what
            a hook returns, unless None, replaces the output.
        always_call: call the hooks also where the forward raises an error.
    """
    with _removed_at_exit() as handles:
        for module, hook in hooks:
            handles.append(module.register_forward_hook(hook, always_call=always_call))
        yield


def hook_gradient(tensor: torch.Tensor, hook: Callable[[torch.Tensor], None]) -> None:
    """Call a hook with the gradient of a tensor when the backward pass reaches it.

    The hook needs no removal: it goes with the graph that the tensor belongs to.

    Args:
        tensor: a tensor that requires a gradient.
        hook: takes the gradient, of the tensor's shape.
    """
    tensor.register_hook(hook)


@contextlib.contextmanager
def _removed_at_exit() -> Iterator[list[RemovableHandle]]:
    """A list for the handles of hooks: those in it at the end are removed, whatever happened."""
    handles: list[RemovableHandle] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()
