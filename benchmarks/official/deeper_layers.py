"""Deeper Layers, arcee-ai/PruneMe: the distances of runs of blocks, on a tiny Llama.

The authors of the paper released no code. The repository named here calls itself an unofficial
implementation; its main function runs as it is. What it loads is replaced: the model, which it
would quantise to four bits, the tokenizer, which hands on our windows, and the text. Its batches
hold all windows, as it leaves out those that do not fill the last one.

It scores no run that begins at the first block. In place of the state that leaves the last block it
has that state after the final norm.
"""

import contextlib
import copy
import csv
import io
import tempfile
import types
import unittest.mock
from pathlib import Path

import torch
from transformers import BatchEncoding, PreTrainedModel

from prunebook.methods.deeper_layers.angular import (
    angular_distances,
    best_run,
    last_token_states,
)

from .common import official_module, relative_difference, tiny_llama, tiny_tokens

REPOSITORY = "https://github.com/arcee-ai/PruneMe"
COMMIT = "faee6c9"
_BLOCKS = 10
_SAMPLES = 12


def parity(folder: str) -> dict:
    """Distances and chosen runs of the official functions beside ours, for runs of every length.

    Args:
        folder: a checkout of the repository.
    """
    similarity = official_module(f"{folder}/compute_block_similarity", "layer_similarity")
    tokens = tiny_tokens(_SAMPLES, 24)
    compared = {}
    # Large embeddings are hardly turned by the blocks, and arccos loses the digits of small angles.
    for name, factor in (("large_distances", 1.0), ("small_distances", 200.0)):
        model = _llama(factor)
        for dtype in (torch.float32, torch.float64):
            label = f"{name}_{str(dtype).removeprefix('torch.')}"
            compared[label] = _compare(similarity, copy.deepcopy(model).to(dtype), tokens)
    return compared


def _llama(factor: float) -> PreTrainedModel:
    """A random Llama whose embeddings are `factor` times as large as its other weights."""
    model = tiny_llama(num_hidden_layers=_BLOCKS, initializer_range=0.1)
    model.model.embed_tokens.weight.mul_(factor)
    generator = torch.Generator().manual_seed(1)
    # Only a norm whose weights differ turns a state.
    model.model.norm.weight.copy_(0.5 + torch.rand(model.config.hidden_size, generator=generator))
    return model


def _official_runs(similarity, model: PreTrainedModel, tokens: torch.Tensor, count: int) -> dict:
    """First block -> distance of the run of `count` blocks, as the main function writes them.

    Args:
        similarity: the repository's module.
        model: returns its hidden states.
        tokens: `[n, length]`.
        count: number of blocks in a run.
    """

    def encode(windows: torch.Tensor, **_) -> BatchEncoding:
        return BatchEncoding({"input_ids": windows, "attention_mask": torch.ones_like(windows)})

    encode.pad_token = "none"
    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (similarity.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: model),
            (similarity.AutoTokenizer, "from_pretrained", lambda *_: encode),
            (similarity, "BitsAndBytesConfig", types.SimpleNamespace),
            (similarity.datasets, "load_dataset", lambda *_, **__: {"windows": list(tokens)}),
        ):
            stack.enter_context(unittest.mock.patch.object(target, name, value))
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        # The main function writes its file to the folder that it runs in.
        stack.enter_context(contextlib.chdir(scratch))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        similarity.main("", "", "windows", len(tokens), tokens.shape[1], count)
        with Path("layer_distances.csv").open() as lines:
            rows = list(csv.DictReader(lines))
    return {int(row["block_start"]): float(row["average_distance"]) for row in rows}


def _compare(similarity, model: PreTrainedModel, tokens: torch.Tensor) -> dict:
    """Distances of all runs that the official code scores, and the run that each would remove.

    Args:
        similarity: the repository's module.
        model: a Llama; returns its hidden states from now on.
        tokens: `[n, length]`.
    """
    states = last_token_states(model, tokens)
    distances = angular_distances(states)
    # The same with the final norm, as the official code has the last state.
    norm = model.model.norm
    normed = angular_distances(torch.cat([states[:-1], norm(states[-1:])]))
    model.config.output_hidden_states = True
    theirs = torch.full_like(distances, torch.nan)
    chosen_equal = []
    paper_equal = []
    for count in range(1, _BLOCKS):
        runs = _official_runs(similarity, model, tokens, count)
        for start, distance in runs.items():
            theirs[start, start + count] = distance
        # The first run of least distance, among those that are scored there.
        official = min(runs, key=runs.get)
        chosen_equal.append(1 + best_run(normed[1:, 1:], count) == official)
        paper_equal.append(best_run(distances, count) == official)
    scored = ~theirs.isnan()
    inner = scored.clone()
    inner[:, -1] = False
    last = scored & ~inner
    return {
        "runs": int(scored.sum()),
        "smallest_distance": theirs[scored].min().item(),
        "largest_distance": theirs[scored].max().item(),
        "distances_difference": relative_difference(distances[inner], theirs[inner]),
        "distances_difference_to_the_final_norm": relative_difference(normed[last], theirs[last]),
        "distances_difference_without_the_final_norm": relative_difference(
            distances[last], theirs[last]
        ),
        "chosen_runs_equal": sum(chosen_equal) / len(chosen_equal),
        "chosen_runs_equal_to_those_of_the_paper": sum(paper_equal) / len(paper_equal),
    }
