"""Trials kept in the user's cache, so that pages which make the same trial share it.

A trial is told by the model's weights, the method with its options, the tokens, the precision, the
machine that its times are of, the versions beneath, and the code that it reaches.
"""

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from ..catalog.source_graph import SourceGraph, source_graph, source_signature
from ..files import find_cached, keep_cached
from ..measure.footprint import Footprint
from ..measure.baseline import add_tensors
from ..measure.quality import Measurement
from ..methods.prune import Report
from ..notebook.quick import PROFILE_VARIABLE
from ..passes.precision import PRECISIONS, chosen_ways

_CPU_INFO = Path("/proc/cpuinfo")
_TRIAL = "trial.json"
_NLL = "nll.safetensors"
_PLAIN = (type(None), bool, int, float, str)
# The library as it was imported. Code that was edited since is not the code that runs, so nothing
# is shared then.
_AS_IMPORTED = source_signature()


def pages_share() -> bool:
    """Is this a page that `prunebook run` executes? Its trials are shared with the other pages."""
    return bool(os.environ.get(PROFILE_VARIABLE))


def model_identity(model) -> list[str]:
    """What a trial depends on of the dense model and the machine: weights, configuration, device,
    versions."""
    digest = hashlib.sha256()
    add_tensors(digest, model.state_dict().values())
    about = {
        "config": model.config.to_json_string(),
        "device": _device(model.device),
        "threads": torch.get_num_threads(),
        "ways": [chosen_ways(model.device, precision) for precision in PRECISIONS],
        "versions": [torch.__version__, transformers.__version__],
    }
    return [digest.hexdigest(), json.dumps(about, sort_keys=True)]


def trial_identity(
    of_model: Sequence[str],
    method,
    calibration: torch.Tensor | None,
    held_out: torch.Tensor,
    asked: Mapping[str, Any],
) -> list[str] | None:
    """What a trial depends on, for `find_trial`; None for a method that cannot be told by its
    options.

    Args:
        of_model: as `model_identity` gives it.
        method: the method object.
        calibration: int64 `[n, length]`, or None.
        held_out: int64 `[windows, length]`.
        asked: what else was asked for, as precision; JSON-able.
    """
    if source_signature() != _AS_IMPORTED:
        return None
    graph = source_graph()
    modules = set()
    options = _plain(method, graph, modules)
    if options is None or not modules <= graph.files.keys():
        return None
    digest = hashlib.sha256()
    for tokens in (calibration, held_out):
        if tokens is not None:
            digest.update(str(list(tokens.shape)).encode())
            add_tensors(digest, [tokens])
    about = json.dumps([options, calibration is not None, dict(asked)], sort_keys=True)
    return [*of_model, about, digest.hexdigest(), code_digest(graph, modules)]


def code_digest(graph: SourceGraph, modules: set[str]) -> str:
    """A hash of the library's code that running a method of these modules, and measuring,
    reaches."""
    here = __name__.rpartition(".")[0]
    reached = graph.reach_of({*modules, f"{here}.comparison"})
    digest = hashlib.sha256()
    for name in sorted(reached):
        digest.update(f"{name}\n{graph.text(name)}".encode())
    return digest.hexdigest()


def _plain(value, graph: SourceGraph, modules: set[str]):
    """The value as JSON, dataclasses by class and fields; None for what is no such value.

    The modules of dataclasses, and of methods that a text names, are added to `modules`.
    """
    if isinstance(value, _PLAIN):
        if isinstance(value, str) and value in graph.methods:
            modules.add(graph.methods[value])
        return [value]
    if isinstance(value, (list, tuple, range)):
        items = [_plain(item, graph, modules) for item in value]
    elif isinstance(value, Mapping):
        pairs = [[key, item] for key, item in value.items()]
        items = [_plain(pair, graph, modules) for pair in pairs]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        modules.add(type(value).__module__)
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        items = [[type(value).__qualname__], *(_plain(field, graph, modules) for field in fields)]
    else:
        return None
    return None if None in items else items


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()} {torch.backends.cpu.get_cpu_capability()}"


def _processor() -> str:
    """The processor's name where the system tells it, as Linux does, or else its architecture."""
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return f"{platform.machine()} {platform.processor()}"


def find_trial(identity: list[str]) -> dict[str, Any] | None:
    """The fields of a `Trial` but for its label and seed, or None where none is kept."""

    def read(folder: Path) -> dict[str, Any]:
        known = json.loads((folder / _TRIAL).read_text(encoding="utf-8"))
        nll = load_file(folder / _NLL)["nll"]
        return {
            "report": Report(**known["report"]),
            "measurement": Measurement(nll=nll, **known["measurement"]),
            "nonzero_parameters": known["nonzero_parameters"],
            "footprint": Footprint(**known["footprint"]),
            "untimed": tuple(known["untimed"]),
        }

    return find_cached("trials", identity, read)


def keep_trial(identity: list[str], fields: Mapping[str, Any]) -> None:
    """Keep the fields of a `Trial`, as `find_trial` gives them.

    Raises:
        UserError: the cache cannot be written.
    """
    measured = dataclasses.asdict(fields["measurement"])
    nll = measured.pop("nll")
    content = {
        "report": fields["report"].to_dict(),
        "measurement": measured,
        "nonzero_parameters": fields["nonzero_parameters"],
        "footprint": fields["footprint"].to_dict(),
        "untimed": list(fields["untimed"]),
    }

    def write(folder: Path) -> None:
        (folder / _TRIAL).write_text(json.dumps(content), encoding="utf-8")
        save_file({"nll": nll.contiguous()}, folder / _NLL)

    keep_cached("trials", identity, write)


def find_nll(identity: list[str]) -> torch.Tensor | None:
    """The kept NLL of each window, or None."""
    return find_cached("sweeps", identity, lambda folder: load_file(folder / _NLL)["nll"])


def keep_nll(identity: list[str], nll: torch.Tensor) -> None:
    """Keep the NLL of each window `[n]`; errors as `keep_trial`."""
    keep_cached("sweeps", identity, lambda folder: save_file({"nll": nll.contiguous()}, folder / _NLL))
