"""Shortened LLaMA, Nota-NetsPresso/shortened-llm: its scripts of scores and of the cut.

The scripts for Taylor, magnitude and perplexity scores and `block_prune.py` run as they are on tiny
Llamas, with their command lines and their files. Two functions of theirs are replaced: `get_model`
returns our model and `get_examples` our tokens. Empty modules stand in for `LLMPruner.peft`, whose
adapters are not used, and for `eval_ppl`, which is not called with `--skip_validation`.

Two differences have an entry of their own. Only parameters named "weight" have a score there, which
leaves out biases. And the mean losses of batches are added up there, where ours is the mean over
the text: that changes more than the scale when the last batch holds fewer windows.
"""

import contextlib
import copy
import csv
import io
import runpy
import sys
import tempfile
import types
import unittest.mock
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedModel

import prunebook as pb
from prunebook.methods import ShortenedLLaMA

from .common import (
    equal_share,
    official_module,
    relative_difference,
    stand_in,
    tiny_llama,
    tiny_tokens,
)

REPOSITORY = "https://github.com/Nota-NetsPresso/shortened-llm"
COMMIT = "4031a92"
# our criterion -> the word in the name of the script, and the file that has the scores in order
_SCRIPTS = {
    "taylor": ("taylor", "block_score_sorted.csv"),
    "magnitude": ("magnitude", "block_score_sorted.csv"),
    "perplexity": ("ppl", "all_ppl_sorted.csv"),
}
_BLOCKS = 12
_REMOVED = 4
_SAMPLES = 10
_LENGTH = 32
# What the official code keeps, unless it is told not to.
_PLUS = {"keep_first": 4, "keep_last": 2}


def parity(folder: str) -> dict:
    """Scores of blocks, their order and what is left of the model, official beside ours.

    Args:
        folder: a checkout of the repository.
    """
    source = Path(folder) / "src"
    stand_in("LLMPruner")
    stand_in("LLMPruner.peft", PeftModel=None)
    stand_in("eval_ppl", eval_ppl=None, generate_txt=None)
    tokens = tiny_tokens(_SAMPLES, _LENGTH)
    stand_in("dataset", get_examples=lambda **_: tokens)
    official_module(str(source), "utils")
    compared = {}
    for name, kv_heads in (("multi_head", 4), ("two_heads_a_group", 2)):
        model = _llama(num_key_value_heads=kv_heads)
        compared[name] = [_compare(source, model, tokens, criterion) for criterion in _SCRIPTS]
    biased = _llama(attention_bias=True)
    compared["with_biases"] = [
        _compare_biases(source, biased, tokens, criterion) for criterion in ("taylor", "magnitude")
    ]
    compared["taylor_in_batches"] = [
        _compare_batches(source, _llama(), tokens, batch) for batch in (5, 2, 3)
    ]
    return compared


def _llama(**options) -> PreTrainedModel:
    """A random Llama whose blocks differ in size and whose norms and biases are not all alike."""
    model = tiny_llama(num_hidden_layers=_BLOCKS, initializer_range=0.1, **options)
    generator = torch.Generator().manual_seed(1)
    scales = 0.5 + torch.rand(_BLOCKS, generator=generator)
    for layer, scale in zip(model.model.layers, scales, strict=True):
        for parameter in layer.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(scale * (parameter + 0.02 * noise))
    return model


def _run(source: Path, script: str, model: PreTrainedModel, options: list[str]) -> None:
    """Run a script of the repository as its main program, with a copy of the model.

    Args:
        source: the folder of the scripts.
        script: name of the file, without its ending.
        model: dense, left as it is.
        options: the command line after the name.
    """
    # A tokenizer is only saved.
    tokenizer = types.SimpleNamespace(save_pretrained=lambda *_: None)
    loaded = (copy.deepcopy(model), tokenizer, "")
    with (
        unittest.mock.patch.object(sys.modules["utils"], "get_model", return_value=loaded),
        unittest.mock.patch.object(sys, "argv", [script, *options]),
        torch.enable_grad(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        runpy.run_path(str(source / f"{script}.py"), run_name="__main__")


def _official_scores(
    source: Path, model: PreTrainedModel, criterion: str, out: Path, batch: int = _SAMPLES
) -> tuple[torch.Tensor, list[int]]:
    """Scores `[L]`, and all blocks from the lowest score to the highest.

    Args:
        source: the folder of the scripts.
        model: dense.
        criterion: ours.
        out: the folder that gets the files of the script.
        batch: windows of a backward pass.
    """
    word, file = _SCRIPTS[criterion]
    options = ["--output_dir", str(out), "--num_calib_data", str(_SAMPLES), "--device", "cpu"]
    if criterion != "perplexity":
        options += ["--batch_size", str(batch)]
    _run(source, f"anal_block_sensitivity_{word}", model, options)
    scores = torch.zeros(_BLOCKS, dtype=torch.float64)
    with (out / file).open() as lines:
        for row in csv.DictReader(lines):
            if criterion == "perplexity":
                scores[int(float(row["removed_block"]))] = float(row["ppl_bookcorpus"])
            else:
                scores[int(row["block_index"])] = float(row["block_score"])
    order = (out / "block_order.csv").read_text().split(",")
    return scores, [int(block) for block in order]


def _official_pruned(source: Path, model: PreTrainedModel, out: Path, plus: bool):
    """The model that `block_prune.py` saves, from the order of blocks in a folder.

    Args:
        source: the folder of the scripts.
        model: dense.
        out: the folder of the order; gets the model.
        plus: keep the first four blocks and the last two.
    """
    saved = out / f"pruned_{plus}"
    options = ["--block_order_csv", str(out / "block_order.csv"), "--output_dir", str(saved)]
    options += ["--num_pruned_blocks", str(_REMOVED), "--device", "cpu", "--skip_validation"]
    if not plus:
        options.append("--no_plus_heuristic")
    _run(source, "block_prune", model, options)
    return LlamaForCausalLM.from_pretrained(saved).eval()


def _compare(source: Path, model: PreTrainedModel, tokens: torch.Tensor, criterion: str) -> dict:
    """One criterion: scores of all blocks, and the model without four, with and without "+".

    Args:
        source: the folder of the scripts.
        model: dense, left as it is.
        tokens: `[n, length]`.
        criterion: ours.
    """
    method = ShortenedLLaMA(_REMOVED, criterion=criterion)
    ours = method.scores(model, tokens)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        theirs, order = _official_scores(source, model, criterion, out)
        row = {
            "criterion": criterion,
            "scores_difference": relative_difference(ours, theirs),
            "highest_to_lowest_score": (theirs.max() / theirs.min()).item(),
            "order_equal": ours.argsort(stable=True).tolist() == order,
            "lowest_that_plus_keeps": len(set(order[:_REMOVED]) & _kept_by_plus()),
        }
        for name, kept in (("plus", _PLUS), ("plain", {})):
            our_model = copy.deepcopy(model)
            method = ShortenedLLaMA(_REMOVED, criterion=criterion, **kept)
            pb.prune(our_model, method, calibration=tokens)
            their_model = _official_pruned(source, model, out, bool(kept))
            row[f"{name}_least_equal_share_of_a_weight"] = _weights_equal(our_model, their_model)
    return row


def _kept_by_plus() -> set[int]:
    return {*range(_PLUS["keep_first"]), *range(_BLOCKS - _PLUS["keep_last"], _BLOCKS)}


def _weights_equal(ours: PreTrainedModel, theirs: PreTrainedModel) -> float:
    """The least share of equal entries over the parameters of two models of the same shapes."""
    pairs = zip(ours.named_parameters(), theirs.named_parameters(), strict=True)
    shares = []
    for (name, weight), (their_name, their_weight) in pairs:
        if name != their_name:
            raise ValueError(f"parameters {name} and {their_name} differ")
        shares.append(equal_share(weight, their_weight))
    return min(shares)


def _compare_biases(
    source: Path, model: PreTrainedModel, tokens: torch.Tensor, criterion: str
) -> dict:
    """Scores of a model with biases, which count here and not there.

    Args:
        source: the folder of the scripts.
        model: dense, left as it is.
        tokens: `[n, length]`.
        criterion: `taylor` or `magnitude`.
    """
    ours = ShortenedLLaMA(_REMOVED, criterion=criterion).scores(model, tokens)
    with tempfile.TemporaryDirectory() as scratch:
        theirs, order = _official_scores(source, model, criterion, Path(scratch))
    # What the biases of each block add to our scores.
    twin = copy.deepcopy(model)
    with torch.enable_grad():
        twin(tokens, labels=tokens).loss.backward()
    added = torch.zeros_like(ours)
    for index, layer in enumerate(twin.model.layers):
        for name, parameter in layer.named_parameters():
            if name.endswith("bias"):
                factor = {"taylor": parameter.grad, "magnitude": 1.0}[criterion]
                added[index] += (parameter * factor).abs().double().sum()
    return {
        "criterion": criterion,
        "scores_difference": relative_difference(ours, theirs),
        "scores_difference_without_biases": relative_difference(ours - added, theirs),
        "order_equal": ours.argsort(stable=True).tolist() == order,
    }


def _compare_batches(
    source: Path, model: PreTrainedModel, tokens: torch.Tensor, batch: int
) -> dict:
    """Taylor scores of the official code over several batches, beside ours of the whole text.

    There the mean losses of batches are added up, here the mean over the text is taken.

    Args:
        source: the folder of the scripts.
        model: dense.
        tokens: `[n, length]`.
        batch: windows of a backward pass there.
    """
    ours = ShortenedLLaMA(_REMOVED, criterion="taylor").scores(model, tokens)
    with tempfile.TemporaryDirectory() as scratch:
        theirs, order = _official_scores(source, model, "taylor", Path(scratch), batch)
    batches = -(-len(tokens) // batch)
    return {
        "windows_a_batch": batch,
        "batches": batches,
        "scores_difference_over_the_number_of_batches": relative_difference(ours, theirs / batches),
        "order_equal": ours.argsort(stable=True).tolist() == order,
    }
