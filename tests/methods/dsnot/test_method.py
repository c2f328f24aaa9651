"""DSnoT on one matrix and through the blocks: starts, what is left out, variances, allocations."""

import functools

import pytest
import torch
import transformers

from prunebook.measure.zeros import verify
from prunebook.methods import RIA, DSnoT, Magnitude, Wanda, prune
from prunebook.methods.dsnot.mask_swaps import refine_mask
from prunebook.methods.dsnot.moments import InputMoments, InputMomentsAndHessian
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.models.loading import save_model
from prunebook.passes.sequential import walk
from prunebook.sparsity.patterns import Unstructured, keep_mask

WEIGHT = torch.tensor([[0.5, -0.2, 0.3, -0.8, 0.9, -0.4]])
# one token: D is W times it, Wanda's score |D|, variances 0
INPUTS = torch.tensor([[2.0, 1, -3, 1, 2, 1]])


def masks(model):
    return {
        name: weight_of(x) != 0 for block in find_blocks(model) for name, x in block.linears.items()
    }


def pruned(make_model, tokens, method, family="llama", **named):
    model = make_model(family)
    prune(model, method, calibration=tokens, **named)
    return masks(model)


def test_one_matrix_by_hand():
    def removed(**options):
        return (
            (DSnoT(sparsity=0.5, **options).prune_matrix(WEIGHT, INPUTS) == 0)
            .nonzero()[:, 1]
            .tolist()
        )

    # D = (1, -0.2, -0.9, -0.8, 1.8, -0.4); Wanda removes 1, 3, 5 and leaves e = -1.4.
    assert removed(cycles=0) == [1, 3, 5]
    # Without variance the one with the lowest D comes back: 3, for 0, so that e = 0.4; no pruned D
    # is positive.
    assert removed(variance_power=0) == [0, 1, 5]
    # Inputs that never vary come first, in order: 1 for 0 (e = -0.2), then 3 for 4 (e = 2.4).
    assert removed() == [0, 4, 5]
    assert removed(overshoot=False) == [0, 3, 5]
    assert removed(cycles=1) == [0, 3, 5]
    assert removed(threshold=0.5) == [0, 3, 5]
    assert removed(threshold=1.5) == [1, 3, 5]
    # By magnitude 1, 2, 5 go first, e = -1.5: 1 for 0 (e = -0.3), then 2 for 4 (e = 2.4).
    assert removed(criterion="magnitude", cycles=0) == [1, 2, 5]
    assert removed(criterion="magnitude") == [0, 4, 5]


@pytest.mark.parametrize(
    ("criterion", "same"),
    [
        ("wanda", Wanda(sparsity=0.5)),
        ("magnitude", Magnitude(sparsity=0.5, scope="row")),
        ("ria", RIA(sparsity=0.5, scope="row")),
    ],
)
def test_without_cycles_it_is_the_first_mask(make_model, tokens, criterion, same):
    expected = pruned(make_model, tokens, same)
    found = pruned(make_model, tokens, DSnoT(sparsity=0.5, criterion=criterion, cycles=0))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    refined = pruned(make_model, tokens, DSnoT(sparsity=0.5, criterion=criterion, cycles=5))
    assert not all(torch.equal(refined[name], expected[name]) for name in expected)


def test_the_sparsegpt_criterion_is_its_score_on_the_weights_as_they_are(make_model, tokens):
    model = make_model("llama")
    with torch.no_grad():
        block = next(walk(model, tokens))
        statistics = block.collect(InputMomentsAndHessian)
        expected = {
            name: keep_mask(of.obs_score(weight_of(block.linears[name])), Unstructured(0.5))
            for name, of in statistics.items()
        }
    wanda = pruned(make_model, tokens, Wanda(sparsity=0.5))
    found = pruned(make_model, tokens, DSnoT(sparsity=0.5, criterion="sparsegpt", cycles=0))
    for name, mask in expected.items():
        assert torch.equal(found[name], mask)
        assert not torch.equal(found[name], wanda[name])
        assert (found[name].sum(0) > 0).any()


def test_linears_left_out_keep_the_first_mask(make_model, tokens):
    start = pruned(make_model, tokens, Wanda(sparsity=0.5))
    found = pruned(make_model, tokens, DSnoT(sparsity=0.5, as_released=("skip-mlp",)))
    first = [name for name in start if ".layers.0." in name]
    # later blocks see other inputs
    same = {name: torch.equal(start[name], found[name]) for name in first}
    assert same == {name: ".mlp." in name for name in first}


@pytest.mark.parametrize("released", [False, True])
def test_the_blocks_give_the_masks_of_the_pure_function(make_model, tokens, released):
    options = {"cycles": 24, "threshold": 0.5}  # more cycles than a queue has weights
    words = ("variance", "queues") if released else ("variance",)
    method = DSnoT(sparsity=0.5, as_released=words, variance_power=0.5, **options)
    found = pruned(make_model, tokens, method)
    model = make_model("llama")
    with torch.no_grad():
        block = next(walk(model, tokens))
        for name, of in block.collect(functools.partial(InputMoments, variance="within")).items():
            weight = weight_of(block.linears[name])
            keep = keep_mask(weight.abs() * of.norm(), Unstructured(0.5))
            root = of.variance().sqrt()
            refined = refine_mask(
                weight, keep, of, powered_variance=root, released_queues=released, **options
            )
            assert torch.equal(found[name], refined)
            counts_kept = torch.equal(found[name].sum(1), keep.sum(1))
            assert counts_kept or released


def test_pooled_and_within_differ(make_model, tokens):
    methods = (DSnoT(sparsity=0.5, as_released=words, cycles=2) for words in ((), ("variance",)))
    pooled, within = (pruned(make_model, tokens, method) for method in methods)
    assert not all(torch.equal(pooled[name], within[name]) for name in pooled)


def test_a_list_of_words_is_kept_as_a_tuple():
    method = DSnoT(sparsity=0.5, as_released=["variance", "skip-mlp"])
    assert method == DSnoT(sparsity=0.5, as_released=("variance", "skip-mlp"))
    assert hash(method) is not None


def test_rows_keep_their_counts_under_an_allocation(make_model, tokens):
    start = pruned(make_model, tokens, "wanda", sparsity=0.5)
    rates = {name: 0.3 if ".mlp." in name else 0.71 for name in start}
    wanda = pruned(make_model, tokens, Wanda(sparsity=0.5), allocation=rates)
    found = pruned(make_model, tokens, DSnoT(sparsity=0.5), allocation=rates)
    for name in start:
        assert torch.equal(found[name].sum(1), wanda[name].sum(1))
    assert pruned(make_model, tokens, "owl", base="dsnot", sparsity=0.6).keys() == start.keys()


@pytest.mark.parametrize("options", [{"sparsity": 0.6}, {"pattern": "2:4"}, {"pattern": "1:4"}])
def test_the_saved_model_reloads_with_its_pattern(
    make_model, tokens, word_tokenizer, tmp_path, options
):
    model = make_model("llama")
    prune(model, "dsnot", calibration=tokens, **options)
    pattern = options.get("pattern") or Unstructured(0.6)
    assert verify(model, pattern).holds
    save_model(model, word_tokenizer, tmp_path / "pruned")
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "pruned").eval()
    assert verify(reloaded, pattern).holds
    with torch.no_grad():
        assert torch.equal(
            *(m(input_ids=tokens, use_cache=False).logits for m in (model, reloaded))
        )
