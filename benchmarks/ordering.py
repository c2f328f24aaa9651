"""The order of the weight-pruning methods: perplexity at 50, 60 and 70 % and at 2:4, several
calibration draws.

    python -m benchmarks.ordering [--methods Wanda RIA ...]

All methods see the same model, calibration text and held-out text. What the record
`results/ordering-cpu.json` holds already is not measured again, and it is written after every
measurement, so that a run can be broken off and resumed, and a method added later. The leaderboard
draws it.
"""

import argparse
import copy
import datetime
import json
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

import prunebook as pb
from prunebook.files import write_atomic

from .official.__main__ import commit

RESULT = Path(__file__).parent / "results" / "ordering-cpu.json"
LEVELS = {
    "50 %": {"sparsity": 0.5},
    "60 %": {"sparsity": 0.6},
    "70 %": {"sparsity": 0.7},
    "2:4": {"pattern": "2:4"},
}
# label -> method, its options, and the levels that it is not defined for
METHODS = {
    "Magnitude": ("magnitude", {}, ()),
    "Wanda": ("wanda", {"precision": "fast"}, ()),
    "RIA": ("ria", {"precision": "fast"}, ()),
    "SparseGPT": ("sparsegpt", {"precision": "fast"}, ()),
    "OWL with Wanda": ("owl", {"precision": "fast"}, ("2:4",)),  # mixed n:m is 2:4 on average only
    "DSnoT": ("dsnot", {"precision": "fast"}, ()),
    # one shot, and rows updated one by one: forty shots and groups of 2,000 entries take hours on
    # two cores
    "LLM Surgeon": (
        "llm-surgeon",
        {"precision": "fast", "shots": 1, "damping": 0.1, "max_correlate": 1},
        (),
    ),
    # no learned rate reaches 70 %; n:m has none to learn
    "BESA": ("besa", {"precision": "fast"}, ("70 %", "2:4")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default=RESULT, type=Path)
    options = parser.parse_args()
    model, tokenizer = pb.load_model("smollm2-135m", device="cpu", dtype="float32")
    held_out = pb.evaluation_tokens(tokenizer, options.windows, options.length)
    dense = pb.dense_baseline(model, held_out)
    protocol = {
        "model": model.prunebook_source,
        "dtype": "float32",
        "device": f"CPU, {torch.get_num_threads()} threads",
        "calibration": f"{options.samples} x {options.length} tokens",
        "seeds": options.seeds,
        "evaluation": f"{options.windows} x {options.length} tokens, windows without overlap",
        "evaluation_precision": dense.precision,
    }
    record = {
        "kind": "prunebook-ordering",
        "version": 1,
        "protocol": protocol,
        "dense": dense.perplexity,
        "rows": [],
    }
    if options.out.exists():
        record = json.loads(options.out.read_text(encoding="utf-8"))
        if record["protocol"] != protocol:
            raise SystemExit(f"{options.out} holds another protocol; give --out, or move it away")
    done = {(row["label"], row["level"], row["seed"]) for row in record["rows"]}
    jobs = [
        (label, level, seed)
        for seed in range(options.seeds)
        for label in options.methods
        for level in LEVELS
        if level not in METHODS[label][2] and not (seed and label == "Magnitude")
    ]
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "prunebook": pb.__version__,
    }
    for label, level, seed in tqdm([job for job in jobs if job not in done], desc="ordering"):
        method, named, _ = METHODS[label]
        calibration = pb.calibration_tokens(tokenizer, options.samples, options.length, seed=seed)
        pruned = copy.deepcopy(model)
        report = pb.prune(pruned, method, calibration=calibration, **named, **LEVELS[level])
        measured = pb.measure(pruned, held_out, precision=dense.precision)
        record["rows"].append(
            {
                "label": label,
                "method": method,
                "options": named,
                "level": level,
                "seed": seed,
                "sparsity": report.sparsity,
                "perplexity": measured.perplexity,
                # Losses by window let the leaderboard test which methods tie with the best.
                "losses": measured.nll.double().round(decimals=6).tolist(),
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "commit": commit(Path(__file__).parent),
                "versions": versions,
            }
        )
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
