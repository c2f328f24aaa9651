"""Trials kept in the user's cache, so that pages which make the same trial share it.

What a trial is known by, its identity: the model's weights, the method with its options, the
tokens, the precision, the machine that its times are of, the versions beneath, and the code that it
reaches.
"""

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from ..catalog.source_graph import SourceGraph, source_graph, source_signature
from ..files import find_cached, keep_cached
from ..measure.baseline import add_tensors, resolve_precision
from ..measure.footprint import Footprint
from ..measure.quality import Measurement
from ..methods.base import Method
from ..methods.prune import Report
from ..notebook.quick import PROFILE_VARIABLE, is_quick_run
from ..passes.precision import PRECISIONS, chosen_ways

_CPU_INFO = Path("/proc/cpuinfo")
_TRIAL_FILE = "trial.json"
_NLL_FILE = "nll.safetensors"
_PLAIN_TYPES = (type(None), bool, int, float, str)
# The library as it was imported. Code that was edited since is not the code that runs, so nothing
# is shared then.
_AS_IMPORTED = source_signature()


class TrialCache:
    """The kept trials of one model and one held-out text; where nothing is shared, it keeps none.

    Args:
        model: the dense model.
        held_out: int64 `[windows, length]`.
        precision: as for `measure_quality`.
        reuse: whether trials are shared; None for the pages that `prunebook run` executes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        held_out: torch.Tensor,
        precision: str,
        reuse: bool | None,
    ):
        if reuse is None:
            reuse = pages_share()
        self._held_out = held_out
        self._precision = {"precision": resolve_precision(model, precision)}
        self._of_model = None
        if reuse:
            self._of_model = model_identity(model)

    def trial(
        self,
        method: Method,
        text: torch.Tensor | None,
        settings: Mapping[str, Any],
        make: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """The fields of a `Trial` but for its label and seed: kept ones, or what `make` returns.

        Args:
            method: the method.
            text: what the method reads or trains on, or None.
            settings: what else was asked for; JSON-able.
            make: makes the trial where none is kept.
        """
        quick = is_quick_run()
        identity = self._identity(method, text, {**settings, "quick": quick})
        if identity is None:
            return make()
        fields = find_trial(identity)
        if fields is None:
            fields = make()
            is_disturbed = fields["untimed"] or fields["footprint"].timing
            if quick or not is_disturbed:  # times of a quick run do not count
                keep_trial(identity, fields)
            # A sweep takes the NLL, whatever the times are. There is no identity any more where the
            # library was edited meanwhile.
            for_sweeps = self._identity(method, text)
            if for_sweeps is not None:
                keep_nll(for_sweeps, fields["measurement"].nll)
        return fields

    def nll(
        self,
        method: Method,
        text: torch.Tensor | None,
        make: Callable[[], torch.Tensor],
    ) -> torch.Tensor:
        """NLL of each held-out window, `[windows]`: kept one, or what `make` returns."""
        identity = self._identity(method, text)
        if identity is None:
            return make()
        nll = find_nll(identity)
        if nll is None:
            nll = make()
            keep_nll(identity, nll)
        return nll

    def _identity(
        self, method: Method, text: torch.Tensor | None, settings: Mapping[str, Any] | None = None
    ) -> list[str] | None:
        """What a trial is known by, or its NLL without `settings`; None where nothing is shared."""
        if self._of_model is None:
            return None
        asked = self._precision | dict(settings or {})
        return trial_identity(self._of_model, method, text, self._held_out, asked)


def pages_share() -> bool:
    """Is this a page that `prunebook run` executes? Its trials are shared with the other pages."""
    return bool(os.environ.get(PROFILE_VARIABLE))


def model_identity(model: PreTrainedModel) -> list[str]:
    """What a trial depends on of the dense model and the machine.

    These are the weights, the configuration, the device and the versions.
    """
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
    method: Method,
    text: torch.Tensor | None,
    held_out: torch.Tensor,
    asked: Mapping[str, Any],
) -> list[str] | None:
    """What a trial depends on, for `find_trial`; None if the method's options do not tell it apart.

    Args:
        of_model: what `model_identity` returns.
        method: the method object.
        text: int64 `[n, length]`, what the method reads or trains on, or None.
        held_out: int64 `[windows, length]`.
        asked: what else was asked for, e.g. the precision; JSON-able.
    """
    if source_signature() != _AS_IMPORTED:
        return None
    graph = source_graph()
    modules = set()
    options = _plain(method, graph, modules)
    if options is None or not modules <= graph.files.keys():
        return None
    digest = hashlib.sha256()
    for tokens in (text, held_out):
        if tokens is not None:
            digest.update(str(list(tokens.shape)).encode())
            add_tensors(digest, [tokens])
    about = json.dumps([options, text is not None, dict(asked)], sort_keys=True)
    return [*of_model, about, digest.hexdigest(), code_digest(graph, modules)]


def code_digest(graph: SourceGraph, modules: set[str]) -> str:
    """A hash of the library's code that pruning with these modules, and measuring, can run."""
    package = __name__.rpartition(".")[0]
    reached = graph.reach_of({*modules, f"{package}.compare"})
    digest = hashlib.sha256()
    for name in sorted(reached):
        digest.update(f"{name}\n{graph.text(name)}".encode())
    return digest.hexdigest()


def _plain(value: Any, graph: SourceGraph, modules: set[str]) -> list | None:
    """The value as JSON, dataclasses by class and fields; None for a value of another kind.

    The modules of dataclasses, and of methods that a text names, are added to `modules`.
    """
    if isinstance(value, _PLAIN_TYPES):
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
    if None in items:
        return None
    return items


def _device(device: torch.device) -> str:
    """The name of a GPU, or that of the processor with the instructions that torch uses."""
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
        known = json.loads((folder / _TRIAL_FILE).read_text(encoding="utf-8"))
        nll = load_file(folder / _NLL_FILE)["nll"]
        return {
            "report": Report(**known["report"]),
            "measurement": Measurement(nll=nll, **known["measurement"]),
            "nonzero_parameters": known["nonzero_parameters"],
            "footprint": Footprint(**known["footprint"]),
            "untimed": tuple(known["untimed"]),
        }

    return find_cached("trials", identity, read)


def keep_trial(identity: list[str], fields: Mapping[str, Any]) -> None:
    """Keep the fields of a `Trial`, those that `find_trial` returns.

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
        (folder / _TRIAL_FILE).write_text(json.dumps(content), encoding="utf-8")
        save_file({"nll": nll.contiguous()}, folder / _NLL_FILE)

    keep_cached("trials", identity, write)


def find_nll(identity: list[str]) -> torch.Tensor | None:
    """The kept NLL of each window, or None."""
    return find_cached("sweeps", identity, lambda folder: load_file(folder / _NLL_FILE)["nll"])


def keep_nll(identity: list[str], nll: torch.Tensor) -> None:
    """Keep the NLL of each window `[windows]`; errors as for `keep_trial`."""

    def write(folder: Path) -> None:
        save_file({"nll": nll.contiguous()}, folder / _NLL_FILE)

    keep_cached("sweeps", identity, write)
