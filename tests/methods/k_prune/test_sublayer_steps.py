"""The walk beside a teacher, and the cut of one sublayer."""

import pytest
import torch

from prunebook.methods.k_prune.sublayer_steps import blocks_to_cut, cut_sublayer
from prunebook.models.anatomy import find_blocks, sublayers

PASSES = {"precision": "exact", "progress": None}


def test_the_teacher_stays_as_it_was_while_the_model_is_cut(make_model, tokens):
    model = make_model("llama")
    whole = sublayers(find_blocks(model)[0].module).neurons
    for step, teacher_step in blocks_to_cut(model, tokens, with_teacher=True, **PASSES):
        # What enters the first block is the same for both.
        if step.index == 0:
            assert torch.equal(step.hidden, teacher_step.hidden)
        else:
            assert not torch.equal(step.hidden, teacher_step.hidden)
        cut_sublayer(step, [0, 2], of_mlp=True)
        assert sublayers(step.module).neurons == 2
        assert sublayers(teacher_step.module).neurons == whole


def test_without_a_teacher_the_blocks_are_those_of_the_model(make_model, tokens):
    model = make_model("llama")
    steps = list(blocks_to_cut(model, tokens, with_teacher=False, **PASSES))
    assert [block.module for block, _ in steps] == [block.module for block in find_blocks(model)]
    assert {teacher for _, teacher in steps} == {None}


@pytest.mark.parametrize("of_mlp", [False, True])
@pytest.mark.parametrize("kept", [[], [1]])
def test_only_the_sublayer_that_is_meant_is_cut(make_classifier, of_mlp, kept):
    block = find_blocks(make_classifier())[0]
    before = sublayers(block.module)
    heads, neurons = before.kv_heads, before.neurons
    cut_sublayer(block, kept, of_mlp)
    after = sublayers(block.module)
    expected = (heads, len(kept)) if of_mlp else (len(kept), neurons)
    assert (after.kv_heads, after.neurons) == expected
