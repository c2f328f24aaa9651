"""Does a change of the code change a number? Fingerprints of what methods, caches and pages
compute.

    python -m benchmarks.fingerprints before.json
    python -m benchmarks.fingerprints after.json --compare before.json

The second call, after a change that should leave every number as it is, names what differs and ends
with an error if anything does. Every method runs with its defaults and with each of its options at
other values, on a small random model from a fixed seed; its fingerprint is a hash of the weights
that it leaves, beside the zeros among them and the loss. A cache's fingerprint is a hash of the
tokens that are written with it and of the positions that it keeps. A page's is a hash of its tables
in `_build/executed/quick`, without times. A method or an option that is not in the tables below is
refused, so that nothing new goes unwatched.

Digits depend on the machine: a comparison with a file of another one is refused.
"""

import argparse
import dataclasses
import hashlib
import json
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import torch
import transformers

import prunebook as pb
from prunebook.errors import UserError
from prunebook.files import write_atomic
from prunebook.measure.baseline import add_tensors
from prunebook.measure.quality import measure_quality
from prunebook.methods.registry import REGISTRY, load_class
from prunebook.notebook.results import RESULTS_MIME

ROOT = Path(__file__).parents[1]
EXECUTED = ROOT / "_build" / "executed" / "quick"
HALF = {"sparsity": 0.5}
FAST = {"precision": ["fast"]}
# method -> the options of its first run, and option -> values that replace or join them, a run each
METHODS: dict[str, tuple[dict[str, Any], dict[str, list]]] = {
    "besa": (
        {"sparsity": 0.5, "epochs": 4},
        {
            "granularity": ["layer"],
            "penalty": [1.0],
            "epochs": [1],
            "reference": ["pruned"],
            "sigmoid": [False],
            "exact_count": [False],
            **FAST,
        },
    ),
    "bitnet-b158": ({}, {"norm": [False]}),
    "compresso": (
        {"sparsity": 0.3},
        {
            "learning_rate": [1e-3],
            "mask_rate": [0.5],
            "multiplier_rate": [0.5],
            "lora_only": [0.5],
            "rank": [2],
            "hidden": [False],
            "batch_size": [2],
            "seed": [1],
            **FAST,
        },
    ),
    "deeper-layers": ({"remove_blocks": 2}, {"sparsity": [0.4], **FAST}),
    "dsnot": (
        HALF,
        {
            "pattern": ["2:4"],
            "criterion": ["magnitude", "ria", "sparsegpt"],
            "cycles": [3],
            "threshold": [0.01],
            "variance_power": [0.0],
            "overshoot": [False],
            "as_released": [("variance",), ("queues",), ("skip-mlp",)],
            **FAST,
        },
    ),
    "gradual-magnitude": (
        {"sparsity": 0.5, "mask_updates": 4, "batch_size": 1},
        {
            "pattern": ["2:4"],
            "ramp_start": [0.0],
            "ramp_end": [1.0],
            "embeddings": [True],
            "learning_rate": [1e-2],
            "seed": [1],
            **FAST,
        },
    ),
    "k-prune": (
        {"sparsity": 0.5, "damping": 1e-3},
        {
            "predictive": [0.0],
            "representational": [1.0],
            "head_weight": [64.0],
            "temperature": [1.0],
            "tune": [False],
            "refresh": [False],
            **FAST,
        },
    ),
    "llm-pruner": (
        {"sparsity": 0.3, "keep_first": 1, "keep_last": 1},
        {
            "ratio": [0.3],
            "criterion": ["vector", "element2", "mix", "l2", "random"],
            "aggregation": ["prod", "max", "last"],
            "structure": ["channel"],
            "seed": [1],
            **FAST,
        },
    ),
    "llm-surgeon": (
        {"sparsity": 0.3, "shots": 2},
        {
            "pattern": ["2:4"],
            "structure": ["rows+columns"],
            "damping": [0.1],
            "max_correlate": [8],
            "criterion": ["k-obd", "l-obd"],
            "scope": ["layer"],
            **FAST,
        },
    ),
    "magnitude": (HALF, {"pattern": ["2:4"], "scope": ["row", "model"]}),
    "minitron": (
        {"keep_neurons": 24, "keep_heads": 2, "keep_hidden": 24},
        {
            "keep_blocks": [3],
            "sparsity": [0.3],
            "sample_aggregation": ["mean"],
            "token_aggregation": ["l2"],
            "head_norm": ["channel"],
            "depth_criterion": ["perplexity"],
            **FAST,
        },
    ),
    "owl": (
        HALF,
        {
            "pattern": ["2:4"],
            "base": ["magnitude", "sparsegpt"],
            "multiplier": [3.0],
            "spread": [0.1],
            "granularity": ["layer"],
            "exact_count": [False],
            **FAST,
        },
    ),
    "remove-blocks": ({"indices": (1,)}, {}),
    "ria": (
        HALF,
        {
            "pattern": ["2:4"],
            "exponent": [0.0],
            "scope": ["row"],
            "permute": ["each", "fold"],
            **FAST,
        },
    ),
    "sheared-llama": (
        {"keep_neurons": 24, "keep_heads": 2},
        {
            "keep_blocks": [3],
            "keep_hidden": [24],
            "learning_rate": [1e-3, 0],
            "mask_rate": [0.1],
            "multiplier_rate": [0.1],
            "batch_size": [2],
            "seed": [1],
            **FAST,
        },
    ),
    "shortened-llama": (
        {"remove_blocks": 1},
        {
            "sparsity": [0.4],
            "criterion": ["taylor", "magnitude"],
            "keep_first": [2],
            "keep_last": [4],
            **FAST,
        },
    ),
    "sparsegpt": (
        HALF,
        {"pattern": ["2:4"], "damping": [0.1], "block_size": [16], "update": [False], **FAST},
    ),
    "wanda": (HALF, {"pattern": ["2:4"], "scope": ["layer"], **FAST}),
}
# options that stand for each other: where one is given, the other goes
INSTEAD = {
    "pattern": ["sparsity"],
    "sparsity": ["remove_blocks", "keep_neurons", "keep_heads", "keep_hidden"],
    "ratio": ["sparsity"],
}
# options that need another one beside them
BESIDE = {
    ("ria", "permute"): {"pattern": "2:4", "sparsity": None},
    ("owl", "pattern"): {"pattern": "4:8"},
    ("llm-pruner", "seed"): {"criterion": "random"},
    ("minitron", "depth_criterion"): {"keep_blocks": 3},
}
# method that is trained -> the steps of its runs; others read or train on `WINDOWS` windows
STEPS = {"compresso": 4, "sheared-llama": 4}
WINDOWS = 8
CACHES = {
    "H2OCache": [{}, {"budget": 8}, {"recent": 0.25}, {"average": True}],
    "KeyformerCache": [
        {"new_tokens": 6},
        {"new_tokens": 6, "budget": 8},
        {"new_tokens": 6, "recent": 0.1},
        {"tau": (1.0, 1.0)},
        {"new_tokens": 6, "noise": False},
        {"new_tokens": 6, "seed": 1},
    ],
    "RandomCache": [{}, {"recent": 0.25}, {"seed": 1}],
    "WindowCache": [{}, {"budget": 8}, {"sinks": 2}],
}
# ends of the names of columns that differ from run to run
TIMES = ("seconds", "latency", "per_second", "peak_memory", "machine_busy")


def small_model() -> transformers.PreTrainedModel:
    """A random Llama with grouped queries, whose weights are large enough for pruning to show."""
    config = transformers.LlamaConfig(
        vocab_size=96,
        bos_token_id=0,
        eos_token_id=0,
        hidden_size=32,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 8
    return model


def text(windows: int, seed: int) -> torch.Tensor:
    """Random tokens, int64 `[windows, 32]`."""
    return torch.randint(96, (windows, 32), generator=torch.Generator().manual_seed(seed))


def runs_of(slug: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The label and the options of each run of a method.

    Raises:
        UserError: an option of the method that no run sets.
    """
    first, others = METHODS[slug]
    options = {field.name for field in dataclasses.fields(load_class(slug))}
    if missing := options - first.keys() - others.keys():
        raise UserError(f"no run sets {', '.join(sorted(missing))} of {slug}; add it to METHODS")
    yield f"method {slug}", first
    for option, values in others.items():
        for value in values:
            changed = first | {option: value} | BESIDE.get((slug, option), {})
            for name in INSTEAD.get(option, []):
                changed.pop(name, None)
            yield f"method {slug} {option}={value}", changed


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of tensors' shapes and bytes."""
    hashed = hashlib.sha256()
    for tensor in tensors:
        hashed.update(str(tuple(tensor.shape)).encode())
        add_tensors(hashed, [tensor])
    return hashed.hexdigest()[:16]


def texts_of(slug: str, options: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The text of one run of a method, under the name of its argument."""
    argument = load_class(slug).text_argument()
    if argument is None:
        return {}
    windows = WINDOWS
    if slug in STEPS:
        windows = STEPS[slug] * options.get("batch_size", 1)
    return {argument: text(WINDOWS, seed=1)[:windows]}


def of_methods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Label -> fingerprint of each run of each method.

    Raises:
        UserError: a method or option without a run, or a run that the library refuses.
    """
    if missing := REGISTRY.keys() - METHODS.keys():
        raise UserError(f"no run of {', '.join(sorted(missing))}; add it to METHODS")
    held_out = text(2, seed=2)
    for slug in METHODS:
        for label, options in runs_of(slug):
            model = small_model()
            torch.manual_seed(0)
            try:
                pb.prune(model, slug, **texts_of(slug, options), **options)
            except UserError as error:
                raise UserError(f"{label}: {error}") from error
            loss = measure_quality(model, held_out, precision="exact").nll.mean().item()
            zeros = sum(int((parameter == 0).sum()) for parameter in model.parameters())
            yield label, {"weights": digest(model.parameters()), "zeros": zeros, "loss": loss}


def of_caches() -> Iterator[tuple[str, dict[str, Any]]]:
    """Label -> fingerprint of a generation with each cache."""
    model = small_model()
    prompt = text(2, seed=3)
    for name, settings in CACHES.items():
        for options in settings:
            cache = getattr(pb.caches, name)(**options)
            written = model.generate(
                prompt,
                past_key_values=cache,
                max_new_tokens=6,
                min_new_tokens=6,
                do_sample=False,
                pad_token_id=0,
            )
            given = [f"{option}={value}" for option, value in options.items()]
            kept = [layer.positions for layer in cache.layers]
            yield (
                " ".join(["cache", name, *given]),
                {"tokens": digest([written]), "positions": digest(kept)},
            )


def of_pages() -> Iterator[tuple[str, dict[str, Any]]]:
    """Page -> fingerprint of its result tables, as they were last executed under `quick`."""
    for path in sorted(EXECUTED.rglob("*.ipynb")):
        if path.name.startswith(".") or path.name.endswith(".failed.ipynb"):
            continue
        outputs = [out for cell in nbformat.read(path, 4).cells for out in cell.get("outputs", [])]
        data = [out.get("data", {}) for out in outputs]
        tables = [shown[RESULTS_MIME] for shown in data if RESULTS_MIME in shown]
        if tables:
            rows = [without_times(row) for table in tables for row in table["rows"]]
            hashed = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]
            page = path.relative_to(EXECUTED).with_suffix("").as_posix()
            yield f"page {page}", {"tables": hashed, "rows": len(rows)}


def without_times(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table without the columns that differ from run to run."""
    return {column: value for column, value in row.items() if not column.endswith(TIMES)}


def machine() -> dict[str, str]:
    """What digits depend on beside the code."""
    return {
        "processor": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A line for each fingerprint that is new, gone or another."""
    lines = []
    for label in sorted(before.keys() | after.keys()):
        old = before.get(label)
        new = after.get(label)
        if old is None:
            lines.append(f"new: {label}")
        elif new is None:
            lines.append(f"gone: {label}")
        elif old != new:
            lines.append(f"changed: {label}: {old} -> {new}")
    return lines


def without_effect(found: Mapping[str, Any]) -> list[str]:
    """A line for each run whose option changes nothing of its method's first run: it watches
    little."""
    lines = []
    for label, fingerprint in found.items():
        first = " ".join(label.split()[:2])
        if label.startswith("method ") and label != first and fingerprint == found[first]:
            lines.append(f"no effect: {label}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="where the fingerprints are written")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="fingerprints from before")
    options = parser.parse_args()
    head = {"kind": "prunebook-fingerprints", "version": 1, "machine": machine()}
    before = None
    if options.compare:
        before = json.loads(options.compare.read_text(encoding="utf-8"))
        for name, value in head.items():
            if before.get(name) != value:
                raise SystemExit(f"{options.compare} has {name} {before.get(name)}, not {value}")
    start = time.perf_counter()
    found = {}
    try:
        for part in (of_methods, of_caches, of_pages):
            for label, fingerprint in part():
                found[label] = fingerprint
                print(f"{time.perf_counter() - start:6.1f} s  {label}: {fingerprint}", flush=True)
    except UserError as error:
        raise SystemExit(f"benchmarks.fingerprints: {error}") from error
    write_atomic(options.out, json.dumps(head | {"fingerprints": found}, indent=1) + "\n")
    print("\n".join([*without_effect(found), f"{len(found)} fingerprints in {options.out}"]))
    if before is not None:
        lines = differences(before["fingerprints"], found)
        print("\n".join(lines) or "nothing has changed")
        raise SystemExit(bool(lines))


if __name__ == "__main__":
    main()
