"""The CUDA device: events, graphs over rotating operands, a cleared cache; what it is, and its
ceilings."""

import gc
import math
import os
import subprocess
import time
from typing import Any

import torch

from ..errors import UserError
from ..kernels.launch import triton
from .case import Operands, Provider, copied
from .measure import CaptureError, LostError
from .timing import spread

_ROTATED = 200e6  # the operands of a graph take together so many bytes at least, and so many caches
_CACHES = 4
_MOST_COPIES = 256
_CLEARED = 256 * 2**20  # bytes written between samples
_QUERIES = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "watts": "power.draw",
    "celsius": "temperature.gpu",
}


def check_cuda() -> None:
    """Raise a `UserError` unless kernels can be timed here."""
    if not torch.cuda.is_available():
        raise UserError(
            f"bench kernels needs a CUDA GPU, and torch {torch.__version__} sees none; run it on "
            "one"
        )
    if triton is None:
        raise UserError(
            "bench kernels needs Triton, which is not installed; use torch's CUDA build for Linux"
        )
    if os.environ.get("TRITON_INTERPRET"):
        raise UserError("TRITON_INTERPRET is set, and interpreted kernels are not timed; unset it")


class GpuTimer:
    """Times on the current CUDA device."""

    name = "cuda"

    def __init__(self):
        self.properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        size = max(_CLEARED, 4 * self.properties.L2_cache_size)
        self._cleared = torch.empty(size, dtype=torch.int8, device="cuda")
        self._rotated = rotated_bytes(self.properties.L2_cache_size)

    def stage(
        self, provider: Provider, operands: Operands, written: tuple[str, ...], graph: bool
    ) -> "_Stage":
        stage = _Stage(provider, operands, written, self._cleared)
        if graph:
            stage.capture(self._rotated)
        return stage

    def settle(self) -> None:
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            raise LostError(str(error).splitlines()[0]) from error

    def clocks(self) -> dict[str, float] | None:
        values = self._query(*_QUERIES.values())
        return values and {
            name: float(value)
            for name, value in zip(_QUERIES, values, strict=True)
            if _number(value)
        }

    def release(self) -> None:
        gc.collect()
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:
            raise LostError(str(error).splitlines()[0]) from error

    def machine(self) -> dict[str, Any]:
        driver = self._query("driver_version")
        p = self.properties
        return {
            "device": p.name,
            "capability": f"{p.major}.{p.minor}",
            "multiprocessors": p.multi_processor_count,
            "memory_bytes": p.total_memory,
            "l2_bytes": p.L2_cache_size,
            "driver": driver[0] if driver else "unknown",
        }

    def ceilings(self) -> tuple[float, float]:
        """Of a copy of 1 GiB, or a sixteenth of the memory, and a product of 8192 cubed."""
        size = min(2**30, self.properties.total_memory // 16)
        source, target = (
            torch.empty(size, dtype=torch.int8, device="cuda").random_(0, 100) for _ in range(2)
        )
        copy = Provider("copy", lambda o: o["target"].copy_(o["source"]))
        seconds = self._median(copy, {"source": source, "target": target}) / 1e6
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        product = (
            self._median(Provider("product", lambda o: o["a"] @ o["b"]), {"a": a, "b": b}) / 1e6
        )
        return 2 * size / seconds / 1e9, 2 * 8192**3 / product / 1e12

    def _median(self, provider: Provider, operands: Operands) -> float:
        stage = self.stage(provider, operands, (), graph=False)
        for _ in range(5):
            stage.device()
        return spread([stage.device() for _ in range(20)]).median

    def _query(self, *fields: str) -> list[str] | None:
        """What `nvidia-smi` says of this device; None where there is no answer."""
        command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        uuid = getattr(self.properties, "uuid", None)
        if uuid is not None:
            command += ["-i", f"GPU-{uuid}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        values = (
            [value.strip() for value in done.stdout.splitlines()[0].split(",")]
            if done.stdout.strip()
            else []
        )
        return values if len(values) == len(fields) else None


def rotated_bytes(l2_bytes: int) -> float:
    """What the operands of a graph take together, so that no cache of `l2_bytes` holds what comes
    next."""
    return max(_ROTATED, _CACHES * l2_bytes)


class _Stage:
    """A provider with its operands: once, or as many copies as no cache holds, in a graph of one
    call each."""

    def __init__(
        self,
        provider: Provider,
        operands: Operands,
        written: tuple[str, ...],
        cleared: torch.Tensor,
    ):
        self.mode = "eager"
        self.copies = 1
        self._graph = None
        self._provider = provider
        self._pristine = operands
        self._written = written
        self._cleared = cleared
        self._device = provider.device or provider.call
        self._raw = []
        self._ready = []
        self._add()
        for _ in range(2):  # compiles, and fills the allocator
            self._device(self._ready[0])
        torch.cuda.synchronize()

    def capture(self, rotated: float) -> None:
        """Put a call for each copy into a graph, as many as take `rotated` bytes, one at least."""
        size = sum(x.nbytes for x in self._ready[0].values() if isinstance(x, torch.Tensor))
        self.copies = min(max(math.ceil(rotated / max(size, 1)), 1), _MOST_COPIES)
        while len(self._ready) < self.copies:
            self._add()
        self._restore()
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph):
                for ready in self._ready:
                    self._device(ready)
        except RuntimeError as error:
            # torch's own way out ends the capture first, which raises again
            torch.cuda.set_stream(stream)
            raise CaptureError(str(error).splitlines()[0]) from error
        self.mode = "graph"
        self._graph = graph
        graph.replay()
        torch.cuda.synchronize()

    def device(self) -> float:
        self._restore()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._cleared.zero_()  # also keeps the device busy while the host launches what follows
        begin.record()
        if self._graph:
            self._graph.replay()
        else:
            self._device(self._ready[0])
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) * 1e3 / self.copies

    def wall(self) -> float:
        self._restore()
        self._cleared.zero_()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        self._provider.call(self._ready[0])
        torch.cuda.synchronize()
        return (time.perf_counter() - begin) * 1e6

    def _add(self) -> None:
        raw = copied(self._pristine)
        self._ready.append(self._provider.prepare(raw))
        self._raw.append({name: raw[name] for name in self._written})

    def _restore(self) -> None:
        for raw in self._raw:
            for name, tensor in raw.items():
                tensor.copy_(self._pristine[name])


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
