"""Folding channel orders: the function stays, the pattern keeps more, and holds as stored."""

import pytest
import torch
from tests.whole_models import linear_weights, logits

from prunebook.criteria.magnitude import magnitude_score
from prunebook.criteria.ria import ria_score
from prunebook.errors import UserError
from prunebook.methods.ria.fold_permutation import FAMILIES, fold_permutations
from prunebook.sparsity.patterns import NofM, keep_mask

PATTERN = NofM(2, 4)


def by_size(weight, norm):
    return magnitude_score(weight)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_dense_function_stays_and_weights_only_move(make_model, tokens, family, tied):
    model = make_model(family, tie_word_embeddings=tied)
    with torch.no_grad():
        # norms and biases at their start would hide a mistake
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                random = torch.Generator().manual_seed(len(name))
                parameter.copy_(1 + 0.5 * torch.randn(parameter.shape, generator=random))
    before = {n: w.clone() for n, w in linear_weights(model).items()}
    expected = logits(model, tokens)
    fold_permutations(model, tokens, ria_score, PATTERN)
    torch.testing.assert_close(logits(model, tokens), expected, rtol=1e-4, atol=1e-4)
    for name, weight in linear_weights(model).items():
        assert torch.equal(weight.flatten().sort().values, before[name].flatten().sort().values)
        moved = not torch.equal(weight, before[name])
        assert moved or weight.shape[1] == 8, name


def test_more_of_the_score_is_retained_everywhere_it_was_sought(make_model, tokens):
    model = make_model("llama", hidden_size=64, head_dim=16, intermediate_size=96)

    def kept():
        return {
            n: w[keep_mask(by_size(w, None), PATTERN)].abs().sum().item()
            for n, w in linear_weights(model).items()
        }

    before = kept()
    fold_permutations(model, tokens, by_size, PATTERN)
    after = kept()
    for ending in ("down_proj", "o_proj"):
        assert all(after[name] > before[name] for name in after if name.endswith(ending))
    readers = [name for name in after if not name.endswith(("down_proj", "o_proj"))]
    assert sum(after[name] for name in readers) > sum(before[name] for name in readers)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_other_architectures_are_refused_and_unchanged(make_model, tokens, family):
    model = make_model(family)
    before = logits(model, tokens)
    with pytest.raises(UserError, match=f"cannot be folded into a '{family}' model; use llama"):
        fold_permutations(model, tokens, by_size, PATTERN)
    assert torch.equal(logits(model, tokens), before)


def test_a_head_that_does_not_divide_is_refused(make_model, tokens):
    with pytest.raises(
        UserError, match="a value head has 8 inputs, which pattern 8:16 does not divide"
    ):
        fold_permutations(make_model("llama"), tokens, by_size, NofM(8, 16))
