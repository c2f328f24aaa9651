"""Our methods beside the authors' own code: same weights, same tokens, one run.

    git clone https://github.com/locuslab/wanda && git -C wanda checkout 8e8fc87
    python -m benchmarks.official wanda=wanda [owl=OWL ...]

Each adapter here names its repository and commit and says what of it had to be replaced. Each
implementation prunes in a process of its own, so that peak memory is its own; the official code
runs as it is, except that decoder layers get the rotary embeddings that today's transformers want,
calibration tokens are ours and CUDA synchronisation is a no-op. Writes a record for each method,
`results/official-<method>-cpu.json`.

Where the official code cannot prune the model of the other comparisons, the adapter has a function
`parity`: it runs the official functions for scores, masks and weights on tiny random models. All
differences in those records are relative to the largest value of the official code.
"""

import argparse
import contextlib
import datetime
import importlib
import io
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

import prunebook as pb
from prunebook.files import write_atomic
from prunebook.measure.memory import peak_memory
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.passes.cpu_choices import linear_library

from .common import agreement

RESULTS = Path(__file__).parents[1] / "results"


def adapter(method: str):
    """The module of a method, e.g. `llm-surgeon` -> `benchmarks.official.llm_surgeon`."""
    return importlib.import_module(f"{__package__}.{method.replace('-', '_')}")


def child(method: str, variant: str, tokens_path: str, out: str, folder: str) -> None:
    """Prune once, save weights, print seconds, CPU seconds, peak memory and what the official code
    told as JSON.

    CPU seconds are of all threads together: other work on the machine disturbs them less than wall
    time.
    """
    tokens = load_file(tokens_path)["tokens"]
    module = adapter(method)
    model, _ = pb.load_model("smollm2-135m", device="cpu", dtype="float32")
    told = None
    with contextlib.redirect_stdout(io.StringIO()), peak_memory(model.device) as memory:
        start = time.perf_counter()
        cpu_start = _cpu_seconds()
        if variant == "official":
            told = module.official(model, tokens, folder)
        else:
            pb.prune(model, module.OURS[variant], calibration=tokens)
        seconds = time.perf_counter() - start
        cpu_seconds = _cpu_seconds() - cpu_start
    weights = {
        n: weight_of(x).contiguous()
        for block in find_blocks(model)
        for n, x in block.linears.items()
    }
    save_file(weights, out)
    measured = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_memory": memory.bytes,
        "told": told,
    }
    print(json.dumps(measured))


def _cpu_seconds() -> float:
    """What all threads of this process have computed so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def parity(method: str, folder: str) -> None:
    """Print what an adapter's `parity` finds, as JSON."""
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        compared = adapter(method).parity(folder)
    print(json.dumps(compared))


def run_parity(method: str, folder: str) -> dict:
    """The record of an adapter with `parity`, without its surroundings.

    It runs in a process of its own: what stands in for one repository's imports is not there for
    the next.
    """
    command = [sys.executable, "-m", __package__, "--parity", method, folder]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if result.returncode:
        raise SystemExit(f"{method} failed:\n{result.stderr[-3000:]}")
    return {
        "protocol": {"model": "tiny, random weights and tokens"},
        "compared": json.loads(result.stdout.splitlines()[-1]),
    }


def run_method(method: str, folder: str, options, scratch: str) -> dict:
    """All variants of one method, interleaved over the rounds; the record without its
    surroundings."""
    module = adapter(method)
    variants = ["official", *module.OURS]
    measured = {variant: [] for variant in variants}
    for _ in range(options.rounds):
        for variant in variants:
            command = [
                sys.executable,
                "-m",
                __package__,
                "--child",
                method,
                variant,
                f"{scratch}/tokens.safetensors",
                f"{scratch}/{method}-{variant}.safetensors",
                folder,
            ]
            result = subprocess.run(
                command, capture_output=True, text=True, cwd=Path(__file__).parents[2]
            )
            if result.returncode:
                raise SystemExit(f"{method} {variant} failed:\n{result.stderr[-3000:]}")
            measured[variant].append(json.loads(result.stdout.splitlines()[-1]))
            print(
                method,
                variant,
                {k: v for k, v in measured[variant][-1].items() if k != "told"},
                flush=True,
            )
    model, tokenizer = pb.load_model("smollm2-135m", device="cpu", dtype="float32")
    held_out = pb.evaluation_tokens(tokenizer, options.windows, options.length)
    tokens = load_file(f"{scratch}/tokens.safetensors")["tokens"]
    extra = {"dense_perplexity": pb.perplexity(model, held_out, precision="exact")}
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        if hasattr(module, "compare"):
            extra["compared"] = module.compare(
                model, tokens, folder, measured["official"][0]["told"]
            )
        if hasattr(module, "same_inputs"):
            extra["same_inputs"] = module.same_inputs(model, tokens[:16], folder)
    theirs = load_file(f"{scratch}/{method}-official.safetensors")
    rows = []
    for variant in variants:
        weights = load_file(f"{scratch}/{method}-{variant}.safetensors")
        for block in find_blocks(model):
            for name, linear in block.linears.items():
                weight_of(linear).copy_(weights[name])
        seconds, official_seconds = (_median(measured[v], "seconds") for v in (variant, "official"))
        zeros, size = (
            sum(f(w) for w in weights.values())
            for f in (lambda w: int((w == 0).sum()), torch.numel)
        )
        row = {
            "method": method,
            "variant": variant,
            "sparsity": zeros / size,
            "seconds": seconds,
            "time_ratio": seconds / official_seconds,
            "cpu_seconds": _median(measured[variant], "cpu_seconds"),
            "peak_memory": _median(measured[variant], "peak_memory"),
            "perplexity": pb.perplexity(model, held_out, precision="exact"),
        }
        rows.append(row | (agreement(weights, theirs) if variant != "official" else {}))
    exact = next((row for row in rows if row["variant"] == "exact"), None)
    if exact:
        for row in rows[1:]:
            row["perplexity_to_exact"] = row["perplexity"] / exact["perplexity"]
    return {"rows": rows, **extra}


def _median(runs: list[dict], key: str):
    return sorted(run[key] for run in runs)[len(runs) // 2]


def commit(folder) -> str:
    """The commit that a checkout stands at."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def compare(method: str, folder: str, options) -> dict:
    """Protocol and comparison of one method on the embedded model, for its record."""
    module = adapter(method)
    _, tokenizer = pb.load_model("smollm2-135m", device="cpu", dtype="float32")
    length = getattr(module, "LENGTH", options.length)
    samples = getattr(module, "SAMPLES", options.samples)
    tokens = pb.calibration_tokens(tokenizer, samples, length, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        save_file({"tokens": tokens}, f"{scratch}/tokens.safetensors")
        measured = run_method(method, folder, options, scratch)
    protocol = {
        "model": "smollm2-135m, float32",
        "options": {name: repr(ours) for name, ours in module.OURS.items()},
        "calibration": [samples, length],
        "evaluation": [options.windows, options.length],
        "rounds": options.rounds,
    }
    return {"protocol": protocol, **measured}


def surroundings(method: str, folder: str) -> dict:
    """What every record begins with: date, machine, versions and commits."""
    return {
        "benchmark": "official",
        "method": method,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "float32_library": linear_library(),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "prunebook": pb.__version__,
        },
        "commits": {"prunebook": commit(Path(__file__).parent), method: commit(folder)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "methods", nargs="*", metavar="METHOD=FOLDER", help="a method and its repository's folder"
    )
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument(
        "--rounds", type=int, default=1, help="repeat, interleaved; the median counts"
    )
    parser.add_argument("--out", default=RESULTS, type=Path)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--parity", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    if options.parity:
        return parity(*options.parity)
    for method, _, folder in (item.partition("=") for item in options.methods):
        module = adapter(method)
        folder = str(Path(folder).resolve())
        if not commit(folder).startswith(module.COMMIT):
            found = f"{folder} stands at {commit(folder)[:7]}"
            raise SystemExit(f"{found}; check out {module.COMMIT} of {module.REPOSITORY}")
        if hasattr(module, "parity"):
            measured = run_parity(method, folder)
        else:
            measured = compare(method, folder, options)
        record = surroundings(method, folder) | measured
        write_atomic(
            options.out / f"official-{method}-cpu.json", json.dumps(record, indent=1) + "\n"
        )
        for row in [*record.get("same_inputs", []), *record.get("rows", [])]:
            print(json.dumps(row))
        print(json.dumps(record.get("compared")))
    return None


if __name__ == "__main__":
    main()
