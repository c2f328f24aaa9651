"""One-shot pruning beside the authors' own code: same weights, same tokens, one run.

    git clone https://github.com/locuslab/wanda && git -C wanda checkout 8e8fc87
    git clone https://github.com/IST-DASLab/sparsegpt && git -C sparsegpt checkout 147d215
    python benchmarks/official.py --wanda wanda --sparsegpt sparsegpt

Each implementation prunes in a process of its own, so that peak memory is its own. The official code runs as
it is, except that decoder layers get the rotary embeddings that today's transformers want, calibration
tokens are ours, CUDA synchronisation is a no-op, and SparseGPT is asked for half a weight less than 50 % so that its
`<=` threshold removes the exact count. Writes a record under `benchmarks/results/`.
"""

import argparse
import contextlib
import datetime
import io
import json
import platform
import subprocess
import sys
import tempfile
import time
import types
import unittest.mock
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

import prunebook as pb
from prunebook.blocks import find_blocks, weight_of
from prunebook.criteria.hessian import Hessian
from prunebook.criteria.wanda import SquaredNorm, wanda_score
from prunebook.files import write_atomic
from prunebook.memory import peak_memory
from prunebook.methods.sparsegpt import sparsegpt_update
from prunebook.patterns import Unstructured, keep_mask

RUNS = [
    ("wanda", "official"), ("wanda", "exact"), ("wanda", "fast"),
    ("sparsegpt", "official"), ("sparsegpt", "exact"), ("sparsegpt", "fast"),
]  # fmt: skip
SPARSITY = 0.5
# Half a weight of the largest block below the target: floor(n * s) is one less, and `<=` removes one more.
SPARSEGPT_OFFICIAL = SPARSITY - 0.5 / (1536 * 128)


def official_wanda(model, tokens: torch.Tensor, folder: str) -> None:
    """The repository's `prune_wanda`, unchanged."""
    sys.path.insert(0, folder)
    from lib import prune

    prune.get_loaders = lambda *_, **__: ([(row[None], None) for row in tokens], None)
    arguments = types.SimpleNamespace(
        nsamples=len(tokens), seed=0, sparsity_ratio=SPARSITY, use_variant=False
    )
    prune.prune_wanda(arguments, model, None, torch.device("cpu"))


def official_sparsegpt(model, tokens: torch.Tensor, folder: str) -> None:
    """The repository's `llama_sequential`, unchanged."""
    sys.path.insert(0, folder)
    import llama

    llama.args = types.SimpleNamespace(
        nsamples=len(tokens), true_sequential=False, minlayer=-1, maxlayer=1000, prune_only="", invert=False,
        wbits=16, sparsity=SPARSEGPT_OFFICIAL, prunen=0, prunem=0, percdamp=0.01, blocksize=128,
    )  # fmt: skip
    llama.llama_sequential(model, [(row[None], None) for row in tokens], torch.device("cpu"))


def adapt(model, length: int) -> None:
    """Let decoder layers be called as the official code calls them: positions inside, a tuple back."""
    torch.cuda.synchronize = lambda *_: None
    model.seqlen, model.hf_device_map = length, {}
    positions = torch.arange(length)[None]
    rotary = model.model.rotary_emb(model.model.embed_tokens(positions), positions)
    for layer in model.model.layers:

        def forward(hidden, attention_mask=None, position_ids=None, inner=layer.forward):
            return (inner(hidden, attention_mask=attention_mask, position_embeddings=rotary),)

        layer.forward = forward


def child(method: str, variant: str, tokens_path: str, out: str, folder: str) -> None:
    """Prune once, save weights, print seconds and peak memory as JSON."""
    tokens = load_file(tokens_path)["tokens"]
    model, _ = pb.load_model("smollm2-135m", device="cpu", dtype="float32")
    log = io.StringIO()
    if variant == "official":
        adapt(model, tokens.shape[1])
    with torch.no_grad(), contextlib.redirect_stdout(log), peak_memory(model.device) as memory:
        start = time.perf_counter()
        if variant == "official":
            {"wanda": official_wanda, "sparsegpt": official_sparsegpt}[method](model, tokens, folder)
        else:
            pb.prune(model, method, sparsity=SPARSITY, calibration=tokens, precision=variant)
        seconds = time.perf_counter() - start
    weights = {n: weight_of(x).contiguous() for block in find_blocks(model) for n, x in block.linears.items()}
    save_file(weights, out)
    print(json.dumps({"seconds": seconds, "peak_memory": memory.bytes}))


def same_inputs(model, tokens: torch.Tensor, folders: dict) -> list[dict]:
    """Each linear of three blocks alone, both sides given the same weight and the same inputs.

    Wanda: mask bits that differ. SparseGPT: mask bits that differ and the relative difference of the weights; once
    as it is, once in float64 with weights that have no ties. The embedded weights were 4-bit numbers: equal ones tie,
    which the two threshold rules resolve differently, and float32 rounding decides near ties.
    """
    sys.path[:0] = [folders["wanda"], folders["sparsegpt"]]
    import sparsegpt
    from lib import layerwrapper

    torch.cuda.synchronize = lambda *_: None
    blocks = find_blocks(model)
    rows = []
    for block in (blocks[0], blocks[len(blocks) // 2], blocks[-1]):
        seen = {name: [] for name in block.linears}
        handles = [
            linear.register_forward_pre_hook(lambda _, inputs, kept=seen[name]: kept.append(inputs[0].clone()))
            for name, linear in block.linears.items()
        ]
        for row in tokens:
            model(row[None], use_cache=False)
        for handle in handles:
            handle.remove()
        for name, linear in block.linears.items():
            weight, inputs = linear.weight.data.clone(), torch.cat(seen[name])
            wrapped, norm = layerwrapper.WrappedGPT(linear), SquaredNorm(weight.shape[1], weight.device)
            for one in inputs:
                wrapped.add_batch(one, None)
                norm.update(one)
            score = weight.abs() * wrapped.scaler_row.sqrt()
            order = score.sort(dim=-1, stable=True).indices[:, : int(weight.shape[1] * SPARSITY)]
            theirs_keep = torch.ones_like(weight, dtype=torch.bool).scatter_(1, order, False)
            ours_keep = keep_mask(wanda_score(weight, norm.norm()), Unstructured(SPARSITY))
            linear.weight.data.copy_(weight)
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
            rows.append({
                "linear": name, "weights": weight.numel(),
                "wanda_bits_different": int((theirs_keep != ours_keep).sum()),
                "sparsegpt": both_sparsegpt(sparsegpt, linear, inputs),
                "sparsegpt_float64_no_ties": in_float64(both_sparsegpt, sparsegpt, linear, inputs, 1 + 1e-4 * noise),
            })  # fmt: skip
    return rows


def both_sparsegpt(official, linear, inputs: torch.Tensor, factor: torch.Tensor | float = 1.0) -> dict:
    """The official solver and ours on `factor * weight`; the linear is left as it was."""
    original = linear.weight.data
    weight = original.to(torch.get_default_dtype()) * factor
    linear.weight.data = weight.clone()
    solver, hessian = official.SparseGPT(linear), Hessian(weight.shape[1], weight.device)
    for one in inputs:
        solver.add_batch(one, None)
        hessian.update(one)
    solver.fasterprune(SPARSEGPT_OFFICIAL, percdamp=0.01, blocksize=128)
    theirs, linear.weight.data = linear.weight.data, original
    ours, _ = sparsegpt_update(weight, hessian.matrix(), Unstructured(SPARSITY, "layer"))
    return {
        "bits_different": int(((ours == 0) != (theirs == 0)).sum()),
        "relative_difference": ((ours - theirs).norm() / theirs.norm()).item(),
    }


def in_float64(function, *arguments):
    """Call with every `.float()` and every new tensor in double precision: what is left is not rounding."""
    torch.set_default_dtype(torch.float64)
    try:
        with unittest.mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            return function(*arguments)
    finally:
        torch.set_default_dtype(torch.float32)


def agreement(ours: dict, theirs: dict) -> dict:
    """Fraction of equal mask bits overall and in the first block."""
    equal = {name: ((ours[name] == 0) == (theirs[name] == 0)).float().mean().item() for name in ours}
    sizes = {name: ours[name].numel() for name in ours}
    first = [name for name in ours if ".layers.0." in name]

    def mean(names):
        return sum(equal[n] * sizes[n] for n in names) / sum(sizes[n] for n in names)

    return {
        "mask_bits_equal": mean(list(ours)),
        "first_block_mask_bits_equal": mean(first),
        "first_block_bit_equal": all(torch.equal(ours[n], theirs[n]) for n in first),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wanda", required=True, help="folder of locuslab/wanda")
    parser.add_argument("--sparsegpt", required=True, help="folder of IST-DASLab/sparsegpt")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1, help="repeat, interleaved; the median counts")
    parser.add_argument("--out", default=Path(__file__).parent / "results", type=Path)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(*arguments.child)

    model, tokenizer = pb.load_model("smollm2-135m", device="cpu", dtype="float32")
    tokens = pb.calibration_tokens(tokenizer, arguments.samples, arguments.length, seed=0)
    held_out = pb.evaluation_tokens(tokenizer, arguments.windows, arguments.length)
    folders = {"wanda": arguments.wanda, "sparsegpt": arguments.sparsegpt}
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        matrices = same_inputs(model, tokens[:16], folders)
    with tempfile.TemporaryDirectory() as scratch:
        tokens_path = f"{scratch}/tokens.safetensors"
        save_file({"tokens": tokens}, tokens_path)
        measured = {run: [] for run in RUNS}
        for _ in range(arguments.rounds):
            for method, variant in RUNS:
                out = f"{scratch}/{method}-{variant}.safetensors"
                command = [sys.executable, __file__, "--wanda", arguments.wanda, "--sparsegpt",
                           arguments.sparsegpt, "--child", method, variant, tokens_path, out, folders[method]]
                result = subprocess.run(command, capture_output=True, text=True)
                if result.returncode:
                    raise SystemExit(f"{method} {variant} failed:\n{result.stderr[-3000:]}")
                measured[method, variant].append(json.loads(result.stdout.splitlines()[-1]))
                print(method, variant, measured[method, variant][-1], flush=True)
        precisions = {
            precision: pb.measure(model, held_out, precision=precision).perplexity for precision in ("exact", "fast")
        }
        rows = [summarise(run, measured, scratch, model, held_out) for run in RUNS]
    record = {
        "benchmark": "official",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "prunebook": pb.__version__},
        "commits": {name: commit(folder) for name, folder in {"prunebook": Path(__file__).parent, **folders}.items()},
        "protocol": {
            "model": "smollm2-135m, float32", "sparsity": SPARSITY,
            "calibration": [arguments.samples, arguments.length], "evaluation": [arguments.windows, arguments.length],
            "rounds": arguments.rounds,
        },
        "dense_perplexity": precisions,
        "rows": rows,
        "same_inputs": matrices,
    }  # fmt: skip
    write_atomic(arguments.out / "official-cpu.json", json.dumps(record, indent=1) + "\n")
    for row in [*matrices, *rows]:
        print(json.dumps(row))
    return None


def commit(folder) -> str:
    """The commit that a checkout stands at."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def summarise(run, measured, scratch, model, held_out) -> dict:
    """One row: median time, its ratio to the official code, peak memory, perplexity and agreement."""
    method, variant = run

    def median(key, which):
        values = sorted(m[key] for m in measured[which])
        return values[len(values) // 2]

    official = (method, "official")
    weights = load_file(f"{scratch}/{method}-{variant}.safetensors")
    for block in find_blocks(model):
        for name, linear in block.linears.items():
            weight_of(linear).copy_(weights[name])
    row = {
        "method": method, "variant": variant, "seconds": median("seconds", run),
        "time_ratio": median("seconds", run) / median("seconds", official),
        "peak_memory": median("peak_memory", run),
        "perplexity": pb.perplexity(model, held_out, precision="exact"),
    }  # fmt: skip
    if variant != "official":
        row |= agreement(weights, load_file(f"{scratch}/{method}-official.safetensors"))
    return row


if __name__ == "__main__":
    main()
