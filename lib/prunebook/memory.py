"""Peak memory of a piece of work: what CUDA allocated, or the process's resident memory on the CPU."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class PeakMemory:
    """`bytes` at the peak; `kind` says of what."""

    bytes: int = 0
    kind: str = ""


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the peak while the block runs; the object that it yields is filled when the block ends.

    On Linux the kernel's high-water mark is reset first. Elsewhere the peak since the process began is all
    that the system tells, and `kind` says so.
    """
    peak = PeakMemory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.bytes, peak.kind = torch.cuda.max_memory_allocated(device), "allocated on the GPU"
        return
    resettable = _reset_high_water_mark()
    yield peak
    if resettable:
        peak.bytes, peak.kind = _high_water_mark(), "resident memory of the process"
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        peak.bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        peak.kind = "resident memory of the process since it began"


def _reset_high_water_mark() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or a sandbox without this file
        return False
    return True


def _high_water_mark() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
