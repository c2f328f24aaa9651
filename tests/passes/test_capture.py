"""Stand-ins for blocks: what they record and hand on, and the blocks back in their places."""

import pytest
import torch
from tests.whole_models import logits

from prunebook.models.anatomy import find_blocks
from prunebook.passes.capture import Recorder, capture_inputs, starting_at_block


@torch.no_grad()
def test_inputs_and_arguments_of_every_batch_size_are_captured(make_model, tokens):
    model = make_model("llama")
    blocks = find_blocks(model)
    hidden, arguments = capture_inputs(model, blocks, tokens, 3)
    assert torch.equal(hidden, model.get_input_embeddings()(tokens))
    assert len(arguments) == len(blocks)
    for of_block in arguments:
        assert sorted(of_block) == [1, 3]  # 7 windows by 3 leave one
    assert [block.module for block in find_blocks(model)] == [block.module for block in blocks]


def test_a_recorder_shows_the_attributes_of_its_block_and_does_not_hold_it(make_model):
    block = make_model("llama").model.layers[0]
    block.kind = "of this block"
    recorder = Recorder(block)
    assert recorder.kind == "of this block"
    assert list(recorder.parameters()) == []
    with pytest.raises(AttributeError):
        recorder.no_such_attribute  # noqa: B018


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
@pytest.mark.parametrize("index", [1, 2, 3])
def test_passes_that_begin_at_a_block_end_as_whole_ones(make_model, tokens, family, index):
    model = make_model(family)
    blocks = [block.module for block in find_blocks(model)]
    expected = logits(model, tokens)
    states = []

    def record(_, __, output):
        states.append(output[0] if isinstance(output, tuple) else output)

    handle = blocks[index - 1].register_forward_hook(record)
    logits(model, tokens)
    handle.remove()
    with starting_at_block(model, index, states[0]):
        found = [logits(model, batch) for batch in (tokens[:3], tokens[3:])]
    torch.testing.assert_close(torch.cat(found), expected)
    assert [block.module for block in find_blocks(model)] == blocks


def test_the_blocks_are_back_after_an_error(make_model):
    model = make_model("llama")
    blocks = list(model.model.layers)
    with starting_at_block(model, 2, torch.zeros(1, 4, 32)):
        assert list(model.model.layers) != blocks
    with (
        pytest.raises(RuntimeError, match="broken off"),
        starting_at_block(model, 2, torch.zeros(1, 4, 32)),
    ):
        raise RuntimeError("broken off")
    assert list(model.model.layers) == blocks
