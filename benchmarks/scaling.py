"""Tiny models trained dense and sparse on equal non-zeros: what the law of sparse pre-training is
fitted to.

    python -m benchmarks.scaling [--minutes 4]

Three counts of non-zero weights outside the embedding, each dense and left over from parents of two
and four times the size; three amounts of text; a second draw of weights and text for the shortest
runs, a third for the smallest of them; and 2:4 beside 50 %. Width alone grows. What the record
`results/scaling-cpu.json` holds already is not trained again, and it is written after every run, so
that the grid can be broken off and resumed. The paper's page draws it.
"""

import argparse
import datetime
import json
import time
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

import prunebook as pb
from prunebook.data.corpora import text_of
from prunebook.files import write_atomic
from prunebook.measure.zeros import count_zeros
from prunebook.methods.sparse_scaling_laws import scaling_law
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
WINDOWS = (4000, 8000, 16000)
# learning rate times width: the best of two to four rates at widths 48, 96 and 192 and 500 steps
RATE = 0.768
PIECES = 32  # held-out windows, and how many parts a row keeps their mean losses of
HELD_OUT = 256


def jobs() -> list[tuple]:
    """`(size, halvings, pattern, windows, seed)`: a parent is `halvings` places behind its size,
    cheapest first."""
    grid = [
        (size, i, None, n, 0)
        for n in WINDOWS
        for size in range(SIZES)
        for i in range(len(SPARSITIES))
    ]
    grid += [(1, 1, "2:4", n, 0) for n in WINDOWS[:2]]
    again = ((0, 1), (1, 1), (2, 1), (0, 2))  # (size, seed)
    return grid + [
        (size, i, None, WINDOWS[0], seed) for size, seed in again for i in range(len(SPARSITIES))
    ]


def run(job: tuple, tokenizer, held_out: torch.Tensor) -> dict:
    """Train one model, and measure it."""
    size, halvings, pattern, windows, seed = job
    hidden, neurons = PARENTS[size + halvings]
    model = tiny.small_llama(
        VOCABULARY,
        hidden=hidden,
        blocks=BLOCKS,
        heads=HEADS,
        neurons=neurons,
        length=LENGTH,
        seed=seed,
    )
    target = {"pattern": pattern} if pattern else {"sparsity": SPARSITIES[halvings]}
    options = {"embeddings": True, "learning_rate": RATE / hidden, "batch": BATCH}
    tokens = windows.pretraining_tokens(tokenizer, windows, LENGTH, seed=seed)
    report = pb.prune(model, "gradual-magnitude", calibration=tokens, **target, **options)
    nll = pb.measure(model, held_out, precision="exact").nll.view(PIECES, -1).mean(1)
    counts = count_zeros(model)
    embedding = model.get_input_embeddings().weight
    parent = sum(size for _, size in counts.values())
    non_zeros = parent - sum(zeros for zeros, _ in counts.values())
    cost = 6 * tokens.numel()
    return {
        "size": size,
        "sparsity": 1 - non_zeros / parent,
        "pattern": report.pattern,
        "seed": seed,
        "target": target,
        "options": options,
        "hidden": hidden,
        "neurons": neurons,
        "parent": parent,
        "non_zeros": non_zeros,
        "layers": [min(report.layers.values()), max(report.layers.values())],
        "embedding": embedding.numel(),
        "embedding_non_zeros": int(embedding.count_nonzero()),
        "windows": windows,
        "tokens": tokens.numel(),
        "steps": windows // BATCH,
        "parent_flops": cost * parent,
        "sparse_flops": cost * non_zeros * scaling_law.sparse_cost(1 - non_zeros / parent),
        "seconds": report.seconds,
        "loss": nll.mean().item(),
        "nll": [round(x, 5) for x in nll.tolist()],
        "last_training_loss": sum(model.prunebook_losses[-50:]) / 50,
    }


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
        # tokens of one pass
        "training_text": len(tokenizer(text_of("training"), verbose=False)["input_ids"]),
        "held_out": HELD_OUT,
        "evaluation": f"{HELD_OUT} x {LENGTH} tokens, windows without overlap",
    }
    record = {"kind": "prunebook-scaling", "version": 1, "protocol": protocol, "rows": []}
    if options.out.exists():
        record = json.loads(options.out.read_text(encoding="utf-8"))
        if record["protocol"] != protocol:
            raise SystemExit(f"{options.out} holds another protocol; give --out, or move it away")
    done = [tuple(row["job"]) for row in record["rows"]]
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "prunebook": pb.__version__,
    }
    for job in tqdm([job for job in jobs() if job not in done], desc="scaling"):
        if time.monotonic() - begin > 60 * options.minutes:
            break
        row = {"job": job, **run(job, tokenizer, held_out), "versions": versions}
        row["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record["rows"].append(row | {"commit": commit(Path(__file__).parent)})
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
