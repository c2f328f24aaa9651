"""The state of a training run on disk, so that a run that was broken off goes on from it."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..files import write_atomic


class Checkpoint:
    """Saves and restores the state of one run; that of another run is refused.

    Args:
        path: the file; None to save nothing.
        every: number of steps between two savings.
        settings: what the run depends on, besides its tokens and the shapes of what it trains.
        tokens: int64 `[n, length]`, the windows of the run.
        tensors: what is trained, by name.
        parts: the optimiser and the schedule, by name: objects with a `state_dict`.
    """

    def __init__(
        self,
        path: str | Path | None,
        every: int,
        settings: tuple,
        tokens: torch.Tensor,
        tensors: Mapping[str, torch.Tensor],
        parts: Mapping[str, Any],
    ):
        self._path = None
        if path:
            self._path = Path(path)
        self._every = every
        self._tensors = tensors
        self._parts = parts
        shapes = [(name, tuple(tensor.shape)) for name, tensor in tensors.items()]
        digest = hashlib.sha256(repr((settings, shapes)).encode())
        digest.update(tokens.cpu().contiguous().numpy().tobytes())
        self._key = digest.hexdigest()

    def load(self) -> list[float]:
        """Restore the state if there is one.

        Returns:
            The losses of the steps so far.

        Raises:
            UserError: the file is the checkpoint of another run.
        """
        if self._path is None or not self._path.exists():
            return []
        state = torch.load(self._path, map_location="cpu", weights_only=True)
        if state["key"] != self._key:
            raise UserError(
                f"{self._path} is the checkpoint of another run; remove it, or name another file"
            )
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(state["trained"][name])
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        return state["losses"]

    def is_due(self, steps: int) -> bool:
        """Whether the state is to be saved after so many steps."""
        return self._path is not None and steps % self._every == 0

    def save(self, losses: list[float]) -> None:
        """Write the state; `losses` are those of the steps so far."""
        state = {name: part.state_dict() for name, part in self._parts.items()}
        state["key"] = self._key
        state["losses"] = losses
        state["trained"] = {name: tensor.detach() for name, tensor in self._tensors.items()}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self._path, buffer.getvalue())

    def remove(self) -> None:
        """Remove the file at the end of the run."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
