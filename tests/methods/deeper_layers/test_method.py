"""Deeper Layers: the run that is chosen, what the report says, and bad input."""

import pytest
import torch

from prunebook import prune
from prunebook.errors import UserError
from prunebook.methods import DeeperLayers
from prunebook.methods.deeper_layers.angular import angular_distances, last_token_states
from prunebook.models.sizes import block_parameters, blocks_to_remove


def test_blocks_that_add_nothing_are_found(make_model, tokens):
    model = make_model("llama", num_hidden_layers=6)
    for index in (2, 3):
        for linear in (
            model.model.layers[index].self_attn.o_proj,
            model.model.layers[index].mlp.down_proj,
        ):
            linear.weight.data.zero_()
    left = [block for i, block in enumerate(model.model.layers) if i not in (2, 3)]
    with torch.no_grad():
        before = model(input_ids=tokens).logits
    report = prune(model, "deeper-layers", remove_blocks=2, calibration=tokens)
    assert list(model.model.layers) == left
    with torch.no_grad():
        assert torch.equal(model(input_ids=tokens).logits, before)
    assert report.sparsity == pytest.approx(1 / 3)
    assert (report.pattern, report.layers) == ("2 blocks", {})
    assert report.calibration == {"samples": 7, "length": 16}


def test_every_run_is_scored_the_first_and_the_last_too(make_model, tokens):
    for seed in range(4):
        model = make_model("qwen3", seed=seed, num_hidden_layers=5)
        blocks = list(model.model.layers)
        d = angular_distances(last_token_states(model, tokens))
        start = min(range(4), key=lambda low, d=d: d[low, low + 2])
        prune(model, DeeperLayers(remove_blocks=2), calibration=tokens)
        assert list(model.model.layers) == blocks[:start] + blocks[start + 2 :]


def test_a_sparsity_is_rounded_down_to_whole_blocks(make_model, tokens):
    model = make_model("gpt2", n_layer=5)
    before = block_parameters(model)
    report = prune(model, "deeper-layers", sparsity=0.79, calibration=tokens)  # 3.95 blocks
    assert report.sparsity == pytest.approx(0.6)
    assert block_parameters(model) == before * 2 // 5
    assert (
        blocks_to_remove(10, None, 0.7, 9) == 7
    )  # 10 * 0.7 may be a little less in floating point
    assert blocks_to_remove(10, None, 0.29, 9) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either remove_blocks, e.g. 6, or sparsity"),
        ({"remove_blocks": 1, "sparsity": 0.5}, "give either remove_blocks"),
        ({"remove_blocks": 0}, "remove_blocks 0 is not allowed"),
        ({"remove_blocks": 1.5}, "remove_blocks 1.5 is not allowed"),
        ({"sparsity": 1}, "sparsity 1 is not allowed"),
        ({"sparsity": 0}, "sparsity 0 is not allowed"),
        ({"remove_blocks": 3}, "3 of 3 blocks cannot go; the nearest is remove_blocks=2"),
        (
            {"sparsity": 0.2},
            "sparsity 0.2 is less than one of 3 blocks; the nearest is remove_blocks=1",
        ),
        ({"remove_blocks": 1, "precision": "half"}, "precision 'half' is unknown"),
    ],
)
def test_impossible_options_are_refused(make_model, tokens, options, message):
    with pytest.raises(UserError, match=message):
        prune(make_model("llama"), "deeper-layers", calibration=tokens, **options)
