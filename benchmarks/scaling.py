"""The grid of tiny models, dense and sparse, that the law of sparse pre-training is fitted to.

    python -m benchmarks.scaling [--minutes 4]

The models have one of three counts of non-zero weights outside the embedding, each dense and left
over from parents of two and four times the size, and are trained on three amounts of text. The
shortest runs have a second draw of weights and text, the smallest of them a third. 2:4 is trained
beside 50 %. Width alone grows.

What the record `results/scaling-cpu.json` holds already is not trained again. It is written after
every run, so that the grid can be broken off and resumed. The paper's page draws it.
"""

import argparse
import datetime
import itertools
import json
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tqdm import tqdm

import prunebook as pb
from prunebook.data.corpora import text_of
from prunebook.data.windows import pretraining_tokens
from prunebook.files import write_atomic
from prunebook.measure.zeros import count_zeros
from prunebook.methods.sparse_scaling_laws.optimal_sparsity import sparse_cost
from prunebook.models import tiny

from .official.__main__ import commit

RESULT = Path(__file__).parent / "results" / "scaling-cpu.json"
VOCABULARY = 1024
LENGTH = 64
BATCH = 8
BLOCKS = 2
HEADS = 2
# (hidden, neurons): each has twice the block parameters of the one before, within 0.02 %
PARENTS = ((48, 144), (68, 203), (96, 288), (136, 406), (192, 576))
SIZES = 3
SPARSITIES = (0.0, 0.5, 0.75)
WINDOWS = (4000, 8000, 16000)  # windows of training text
# Learning rate times width: the best of two to four rates at widths 48, 96 and 192 and 500 steps.
RATE = 0.768
HELD_OUT = 256  # held-out windows
PIECES = 32  # parts of the held-out windows whose mean losses a row keeps


@dataclass(frozen=True)
class Job:
    """One model of the grid.

    size: which of the counts of non-zero weights it has.
    halvings: how often density is halved; the parent is so many places behind the size.
    pattern: n:m, None for the sparsity of the halvings.
    windows: windows of training text.
    seed: seed of weights and text.
    """

    size: int
    halvings: int
    pattern: str | None
    windows: int
    seed: int


def jobs() -> list[Job]:
    """All models of the grid, the cheapest first."""
    places = list(itertools.product(WINDOWS, range(SIZES), range(len(SPARSITIES))))
    grid = [Job(size, halvings, None, windows, 0) for windows, size, halvings in places]
    grid += [Job(1, 1, "2:4", windows, 0) for windows in WINDOWS[:2]]
    for size, seed in ((0, 1), (1, 1), (2, 1), (0, 2)):
        grid += [Job(size, i, None, WINDOWS[0], seed) for i in range(len(SPARSITIES))]
    return grid


def run(
    job: Job, tokenizer: transformers.PreTrainedTokenizerBase, held_out: torch.Tensor
) -> dict[str, Any]:
    """Train one model and measure it: a row of the record."""
    hidden, neurons = PARENTS[job.size + job.halvings]
    model = tiny.small_llama(
        VOCABULARY,
        hidden=hidden,
        blocks=BLOCKS,
        heads=HEADS,
        neurons=neurons,
        length=LENGTH,
        seed=job.seed,
    )
    target = {"sparsity": SPARSITIES[job.halvings]}
    if job.pattern:
        target = {"pattern": job.pattern}
    options = {"embeddings": True, "learning_rate": RATE / hidden, "batch_size": BATCH}
    tokens = pretraining_tokens(tokenizer, job.windows, LENGTH, seed=job.seed)
    report = pb.prune(model, "gradual-magnitude", data=tokens, **target, **options)
    nll = pb.measure_quality(model, held_out, precision="exact").nll.view(PIECES, -1).mean(1)
    return {
        "size": job.size,
        "pattern": report.pattern,
        "seed": job.seed,
        "target": target,
        "options": options,
        "hidden": hidden,
        "neurons": neurons,
        **counts(model, tokens.numel(), report),
        "windows": job.windows,
        "tokens": tokens.numel(),
        "steps": job.windows // BATCH,
        "seconds": report.seconds,
        "loss": nll.mean().item(),
        "nll": [round(x, 5) for x in nll.tolist()],
        "last_training_loss": sum(report.details[-50:]) / 50,
    }


def counts(
    model: transformers.PreTrainedModel, tokens: int, report: pb.methods.Report
) -> dict[str, Any]:
    """What a trained model has of weights and non-zeros, and what its training costs."""
    zeros = count_zeros(model)
    parent = sum(size for _, size in zeros.values())
    non_zeros = parent - sum(number for number, _ in zeros.values())
    sparsity = 1 - non_zeros / parent
    embedding = model.get_input_embeddings().weight
    return {
        "sparsity": sparsity,
        "parent": parent,
        "non_zeros": non_zeros,
        "layers": [min(report.layers.values()), max(report.layers.values())],
        "embedding": embedding.numel(),
        "embedding_non_zeros": int(embedding.count_nonzero()),
        "parent_flops": 6 * tokens * parent,
        "sparse_flops": 6 * tokens * non_zeros * sparse_cost(sparsity),
    }


def open_record(path: Path, protocol: dict[str, Any]) -> dict[str, Any]:
    """The record at a path, or an empty one where there is none yet."""
    if not path.exists():
        return {"kind": "prunebook-scaling", "version": 1, "protocol": protocol, "rows": []}
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["protocol"] != protocol:
        raise SystemExit(f"{path} holds another protocol; give --out, or move it away")
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="start no run after these"
    )
    parser.add_argument("--out", default=RESULT, type=Path)
    options = parser.parse_args()
    begin = time.monotonic()
    tokenizer = tiny.train_tokenizer(VOCABULARY)
    held_out = pb.evaluation_tokens(tokenizer, HELD_OUT, LENGTH)
    protocol = {
        "model": f"new Llama, {BLOCKS} blocks, {HEADS} heads, tied embedding",
        "vocabulary": VOCABULARY,
        "blocks": BLOCKS,
        "heads": HEADS,
        "length": LENGTH,
        "dtype": "float32",
        "device": f"CPU, {torch.get_num_threads()} threads",
        "training": f"gradual-magnitude, batch {BATCH}, learning rate {RATE} / width, cosine to 0",
        "text": "embedded",
        # tokens of one pass over the training text
        "training_text": len(tokenizer(text_of("training"), verbose=False)["input_ids"]),
        "held_out": HELD_OUT,
        "evaluation": f"{HELD_OUT} x {LENGTH} tokens, windows without overlap",
    }
    record = open_record(options.out, protocol)
    done = [Job(*row["job"]) for row in record["rows"]]
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "prunebook": pb.__version__,
    }
    for job in tqdm([job for job in jobs() if job not in done], desc="scaling"):
        if time.monotonic() - begin > 60 * options.minutes:
            break
        row = {"job": astuple(job), **run(job, tokenizer, held_out), "versions": versions}
        row["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record["rows"].append(row | {"commit": commit(Path(__file__).parent)})
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
