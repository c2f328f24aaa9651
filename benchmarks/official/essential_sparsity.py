"""Magnitude pruning, VITA-Group/essential_sparsity: both `Pruner` classes on random tiny models.

The number of blocks is written into the classes: 24 of OPT, 12 of BERT. Their random masks have no
counterpart here. `torch.nn.utils.prune`, which they call, rounds the count to the nearest weight,
ours rounds it down; with n:m the code counts the zeros, ours counts what stays.
"""

import contextlib
import copy
import importlib.util
import io
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, OPTConfig, OPTForCausalLM

from prunebook.methods import Magnitude
from prunebook.models.anatomy import find_blocks, weight_of

from .common import equal_share

REPOSITORY = "https://github.com/VITA-Group/essential_sparsity"
COMMIT = "2f85c27"
_SPARSITIES = (0.1, 0.215, 0.3, 0.5, 0.7, 0.9)
# zeros of every group there -> our pattern
_GROUPS = {(2, 4): "2:4", (1, 4): "3:4", (4, 8): "4:8"}


def parity(folder: str) -> dict:
    """Masks of the official classes beside ours.

    Args:
        folder: a checkout of the repository.
    """
    compared = {}
    for name, make in (("opt", _opt), ("bert", _bert)):
        pruner = _pruner(folder, name)
        model = make()
        compared[f"{name}_global"] = [
            _compare(model, pruner, "prune_model", Magnitude(sparsity, scope="model"), sparsity)
            for sparsity in _SPARSITIES
        ]
    pruner = _pruner(folder, "opt")
    model = _opt()
    compared["opt_each_matrix"] = [
        _compare(model, pruner, "prune_model_structured", Magnitude(sparsity), sparsity)
        for sparsity in _SPARSITIES
    ]
    compared["opt_n_of_m"] = [
        _compare(model, pruner, "prune_n_m_sparsity", Magnitude(pattern=pattern), *zeros)
        for zeros, pattern in _GROUPS.items()
    ]
    # bfloat16 has few magnitudes, so that many weights tie with the last one that goes.
    tied = _opt().to(torch.bfloat16)
    compared["opt_global_bfloat16"] = [
        _compare(tied, pruner, "prune_model", Magnitude(sparsity, scope="model"), sparsity)
        for sparsity in _SPARSITIES
    ]
    return compared


def _pruner(folder: str, model: str):
    """The class `Pruner` of one kind of model; both modules have the same name."""
    path = Path(folder) / "assets" / f"{model}_sparseland" / "pruner.py"
    spec = importlib.util.spec_from_file_location(f"{model}_pruner", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Pruner


def _opt() -> OPTForCausalLM:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=64,
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=24,
        num_attention_heads=4,
        max_position_embeddings=32,
        word_embed_proj_dim=32,
    )
    return OPTForCausalLM(config).eval()


def _bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=12,
        num_attention_heads=4,
        max_position_embeddings=32,
    )
    return BertForSequenceClassification(config).eval()


def _compare(model, pruner, function: str, ours: Magnitude, *theirs) -> dict:
    """Mask bits and pruned weights of one setting.

    Args:
        model: the dense model, left as it is.
        pruner: the official class.
        function: the name of its method that prunes.
        ours: our method.
        theirs: arguments of the official method.
    """
    their_model = copy.deepcopy(model)
    with contextlib.redirect_stdout(io.StringIO()):
        getattr(pruner(their_model), function)(*theirs)
    our_model = copy.deepcopy(model)
    ours.prune(our_model)
    dense, our_weights, their_weights = (
        _all_weights(which) for which in (model, our_model, their_model)
    )
    removed = [dense[weights == 0].abs().sort().values for weights in (our_weights, their_weights)]
    row = {
        "setting": list(theirs),
        "weights": dense.numel(),
        "removed_ours": len(removed[0]),
        "removed_official": len(removed[1]),
        "bits_different": int(((our_weights == 0) != (their_weights == 0)).sum()),
        "mask_bits_equal": equal_share(our_weights == 0, their_weights == 0),
    }
    if ours.scope == "model":
        # In one ranking, bits that differ by ties leave the magnitudes of what goes as they are.
        shared = min(len(magnitudes) for magnitudes in removed)
        row["removed_magnitudes_equal"] = torch.equal(removed[0][:shared], removed[1][:shared])
    return row


def _all_weights(model) -> torch.Tensor:
    """All weights that are pruned, in one vector, in the order of the blocks."""
    weights = []
    for block in find_blocks(model):
        weights += [weight_of(linear).flatten() for _, linear in sorted(block.linears.items())]
    return torch.cat(weights)
