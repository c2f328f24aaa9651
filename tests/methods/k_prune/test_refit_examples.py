"""What a sublayer lacks beside the same sublayer of the unpruned model."""

import copy

import pytest
import torch

from prunebook.methods.k_prune.refit_examples import examples
from prunebook.models.anatomy import all_sublayers, find_stack
from prunebook.passes.sequential import walk


def step_pairs(model, teacher, tokens):
    return zip(walk(model, tokens), walk(teacher, tokens), strict=True)


@pytest.mark.parametrize("kind", ["bert", "llama", "qwen3", "opt"])
def test_nothing_lacks_where_nothing_was_cut(make_model, make_classifier, tokens, kind):
    model = make_classifier() if kind == "bert" else make_model(kind)
    teacher = copy.deepcopy(model)
    for step, whole in step_pairs(model, teacher, tokens):
        for of_mlp in (False, True):
            for _, lacking in examples(step, whole, of_mlp):
                assert lacking.abs().max() < 1e-5


@torch.no_grad()
def into_the_last_norm(step):
    seen = []
    handle = step.module.output.LayerNorm.register_forward_pre_hook(
        lambda _, i: seen.append(i[0].flatten(0, 1))
    )
    step.module(step.hidden)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("kind", ["bert", "llama", "opt"])
def test_what_lacks_is_the_difference_of_the_sums(make_model, make_classifier, tokens, kind):
    """Independently: what flows into the norm after a sublayer (BERT), or along the stream
    (others)."""
    teacher = make_classifier() if kind == "bert" else make_model(kind)
    model = copy.deepcopy(teacher)
    for parts in all_sublayers(model):
        parts.out.weight.data *= 0.5
        parts.last.weight.data *= 0.5
    last = len(find_stack(model)[1]) - 1
    for step, whole in step_pairs(model, teacher, tokens):
        found = torch.cat([lacking for _, lacking in examples(step, whole, True)])
        if kind == "bert":
            expected = into_the_last_norm(whole) - into_the_last_norm(step)
        else:
            runs = [
                torch.cat([each.run(batch) for batch in each.hidden.split(each.batch_size)])
                for each in (whole, step)
            ]
            expected = (runs[0] - runs[1]).flatten(0, 1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert step.index == last
