"""Gather one statistic for each distinct input of the linears of a block, by hooks."""

from collections.abc import Callable, Iterable

import torch

from .hooks import PreHook
from .statistics import Statistic


class EndOfPassError(Exception):
    """Ends a forward pass early, once everything that it was run for has been observed."""


class InputCollector:
    """The hooks that gather one statistic for each distinct input of a block's linears.

    Linears that read one and the same tensor form a group; the first of them to run leads it, and
    its statistic is that of the group.

    Args:
        factory: `(width, device)` -> a new statistic.
        update: `(statistic, inputs)`, which takes the inputs of one batch.
    """

    def __init__(
        self,
        factory: Callable[[int, torch.device], Statistic],
        update: Callable[[Statistic, torch.Tensor], None],
    ):
        self._factory = factory
        self._update = update
        self._first_inputs: list[torch.Tensor] = []
        self.groups: list[list[str]] = []
        self.statistics: dict[str, Statistic] = {}

    def discovering_hooks(self, names: Iterable[str]) -> dict[str, PreHook]:
        """Hooks of the first batch by name of linear: they form the groups."""
        return {name: self._discover(name) for name in names}

    def end_discovery(self) -> bool:
        """Whether the batch before formed groups; its inputs are no longer needed and let go."""
        formed_groups = bool(self._first_inputs)
        self._first_inputs.clear()
        return formed_groups

    def leading_hooks(self, stop_at_last: bool) -> dict[str, PreHook]:
        """Hooks of all later batches by name of leading linear.

        Args:
            stop_at_last: end the pass at the last leading linear, whose output nobody needs.
        """
        last = None
        if stop_at_last:
            last = next(reversed(self.statistics), None)
        return {name: self._observe(name, name == last) for name in self.statistics}

    def _discover(self, name: str) -> PreHook:
        def hook(_, inputs):
            x = inputs[0]
            for group, first_input in zip(self.groups, self._first_inputs, strict=True):
                if first_input is x:
                    group.append(name)
                    return
            self.groups.append([name])
            # The tensor is held, so that no later one can be mistaken for it.
            self._first_inputs.append(x)
            self.statistics[name] = self._factory(x.shape[-1], x.device)
            self._update(self.statistics[name], x)

        return hook

    def _observe(self, name: str, is_last: bool) -> PreHook:
        def hook(_, inputs):
            self._update(self.statistics[name], inputs[0])
            if is_last:
                raise EndOfPassError

        return hook
