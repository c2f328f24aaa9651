"""The CUDA device: events, graphs over rotating operands, a cleared cache, and its ceilings."""

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

# The operands of a graph take together at least so many bytes, and so many times the cache.
_ROTATED = 200e6
_CACHES = 4
_MOST_COPIES = 256
_CLEARED = 256 * 2**20  # bytes written between samples, which clears the cache
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
        if values is None:
            return None
        named = zip(_QUERIES, values, strict=True)
        return {name: float(value) for name, value in named if _is_number(value)}

    def release(self) -> None:
        gc.collect()
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:
            raise LostError(str(error).splitlines()[0]) from error

    def machine(self) -> dict[str, Any]:
        (driver,) = self._query("driver_version") or ["unknown"]
        p = self.properties
        return {
            "device": p.name,
            "capability": f"{p.major}.{p.minor}",
            "multiprocessors": p.multi_processor_count,
            "memory_bytes": p.total_memory,
            "l2_bytes": p.L2_cache_size,
            "driver": driver,
        }

    def ceilings(self) -> tuple[float, float]:
        """GB/s of a copy and TFLOP/s of a bfloat16 product, measured now.

        The copy is one of 1 GiB, or of a sixteenth of the memory; the product is 8192 cubed.
        """
        size = min(2**30, self.properties.total_memory // 16)
        source = torch.empty(size, dtype=torch.int8, device="cuda").random_(0, 100)
        target = torch.empty(size, dtype=torch.int8, device="cuda").random_(0, 100)
        copy = Provider("copy", lambda o: o["target"].copy_(o["source"]))
        copy_seconds = self._median(copy, {"source": source, "target": target}) / 1e6
        a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        b = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        product = Provider("product", lambda o: o["a"] @ o["b"])
        product_seconds = self._median(product, {"a": a, "b": b}) / 1e6
        return 2 * size / copy_seconds / 1e9, 2 * 8192**3 / product_seconds / 1e12

    def _median(self, provider: Provider, operands: Operands) -> float:
        """The median of 20 samples on the device, in microseconds, after 5 that do not count."""
        stage = self.stage(provider, operands, (), graph=False)
        for _ in range(5):
            stage.device()
        return spread([stage.device() for _ in range(20)]).median

    def _query(self, *fields: str) -> list[str] | None:
        """The answers of `nvidia-smi` for this device; None where there is none."""
        command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        uuid = getattr(self.properties, "uuid", None)
        if uuid is not None:
            command += ["-i", f"GPU-{uuid}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        if not done.stdout.strip():
            return None
        values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
        if len(values) != len(fields):
            return None
        return values


def rotated_bytes(l2_bytes: int) -> float:
    """Bytes that the operands of a graph take together.

    With so many, no cache of `l2_bytes` holds the operands of the next call.
    """
    return max(_ROTATED, _CACHES * l2_bytes)


class _Stage:
    """A provider with its operands.

    They are there once, or, in a graph of one call each, in more copies than a cache holds.
    """

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
        # The first calls compile, and fill the allocator.
        for _ in range(2):
            self._device(self._ready[0])
        torch.cuda.synchronize()

    def capture(self, rotated: float) -> None:
        """Put a call for each copy into a graph.

        Args:
            rotated: bytes that the copies take together at least.
        """
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
            # Leaving torch's own context ends the capture first, which raises again.
            torch.cuda.set_stream(stream)
            raise CaptureError(str(error).splitlines()[0]) from error
        self.mode = "graph"
        self._graph = graph
        graph.replay()
        torch.cuda.synchronize()

    def device(self) -> float:
        self._restore()
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        # Clears the cache, and keeps the device busy while the host launches what follows.
        self._cleared.zero_()
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
        """Make one more copy of the operands."""
        raw = copied(self._pristine)
        self._ready.append(self._provider.prepare(raw))
        self._raw.append({name: raw[name] for name in self._written})

    def _restore(self) -> None:
        """Put back the operands that calls write to."""
        for raw in self._raw:
            for name, tensor in raw.items():
                tensor.copy_(self._pristine[name])


def _is_number(text: str) -> bool:
    """Whether `nvidia-smi` answered with a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
