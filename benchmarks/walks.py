"""How much of the library does a reader open to follow one method from end to end?

    python -m benchmarks.walks

A small model is pruned by Wanda, and another generates with H2O's cache, while each function of the
library that runs is noted. What a reader follows are the functions that run in the parts of the
library that hold the algorithm: score, norms, mask and the order of the blocks; tokens that stay,
and the attention that says so. The engine, checks, the capture of the first block's inputs,
precision, what transformers asks of any cache, and the kernels' dispatch are not among them.
Printed are the files with the lines of the functions that ran.
"""

import inspect
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import torch
import transformers

import prunebook as pb
from prunebook.caches import H2OCache

LIBRARY = Path(pb.__file__).parent
# subject -> parts of the library that hold its algorithm, most files and lines that may be read
WALKS = {
    "wanda": (
        (
            "methods/wanda.py",
            "methods/base.py",
            "criteria",
            "passes/sequential.py",
            "passes/statistics.py",
            "sparsity/patterns.py",
            "kernels/score.py",
        ),
        6,
        800,
    ),
    "h2o": (
        (
            "caches/h2o.py",
            "caches/policy.py",
            "caches/layer.py",
            "caches/attention.py",
            "kernels/attention/mass.py",
            "kernels/attention/decode.py",
            "kernels/attention/compaction.py",
        ),
        7,
        900,
    ),
}


def small_model() -> transformers.PreTrainedModel:
    """A random Llama of two blocks."""
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=24,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def prune_by_wanda() -> None:
    """What `pb.prune(model, "wanda")` runs."""
    text = torch.randint(64, (4, 8), generator=torch.Generator().manual_seed(0))
    pb.prune(small_model(), "wanda", sparsity=0.5, calibration=text)


def generate_with_h2o() -> None:
    """What a generation with the cache of H2O runs."""
    prompt = torch.randint(64, (1, 12), generator=torch.Generator().manual_seed(0))
    cache = H2OCache(budget=6)
    small_model().generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        past_key_values=cache,
        max_new_tokens=4,
        do_sample=False,
        pad_token_id=0,
    )


RUNS: dict[str, Callable[[], None]] = {"wanda": prune_by_wanda, "h2o": generate_with_h2o}


def executed_code(run: Callable[[], None]) -> set[CodeType]:
    """The code of every function of the library that a run executes."""
    executed = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(LIBRARY)):
            executed.add(frame.f_code)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return executed


def lines_read(executed: set[CodeType], parts: tuple[str, ...]) -> dict[str, int]:
    """File -> lines of its functions that ran, for the files of the algorithm."""
    lines = defaultdict(set)
    for code in executed:
        name = Path(code.co_filename).relative_to(LIBRARY).as_posix()
        if name.startswith(parts) and code.co_name != "<module>":
            source, first = inspect.getsourcelines(code)
            lines[name] |= set(range(first, first + len(source)))
    return {name: len(numbers) for name, numbers in sorted(lines.items())}


def main() -> None:
    kept = True
    for subject, (parts, most_files, most_lines) in WALKS.items():
        RUNS[subject]()  # once before, so that imports and caches are out of the way
        files = lines_read(executed_code(RUNS[subject]), parts)
        total = sum(files.values())
        print(f"{subject}: {len(files)} files (limit {most_files})", end=", ")
        print(f"{total} lines (limit {most_lines})")
        for name, count in files.items():
            print(f"  {count:4} {name}")
        kept &= len(files) <= most_files and total <= most_lines
    if not kept:
        sys.exit(1)


if __name__ == "__main__":
    main()
