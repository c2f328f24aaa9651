"""RIA on one matrix and through the blocks; permutations simulated and folded."""

import pytest
import torch
import transformers
from tests.whole_models import logits

from prunebook.criteria.ria import ria_score
from prunebook.errors import UserError
from prunebook.measure.zeros import verify
from prunebook.methods import RIA, prune
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.models.loading import save_model


def test_one_matrix_by_hand():
    weight = torch.tensor([[1.0, 2], [3, 4]])
    inputs = torch.eye(2)
    # RI = [[0.583, 1], [1.179, 1.238]]; norms are 1.
    assert RIA(sparsity=0.5).prune_matrix(weight, inputs).tolist() == [[0, 0], [3, 4]]
    assert RIA(sparsity=0.5, scope="row").prune_matrix(weight, inputs).tolist() == [[0, 2], [0, 4]]
    assert RIA(pattern="1:2").prune_matrix(weight, inputs).tolist() == [[0, 2], [0, 4]]
    strong = torch.diag(torch.tensor([9.0, 1]))  # sqrt 3 times the score of the first column
    assert RIA(sparsity=0.5).prune_matrix(weight, strong).tolist() == [[1, 0], [3, 0]]
    assert RIA(sparsity=0.5, exponent=0).prune_matrix(weight, strong).tolist() == [[0, 0], [3, 4]]


def test_each_keeps_more_of_the_score_at_the_same_count():
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    inputs = torch.eye(32)
    score = ria_score(weight, torch.ones(32)).dense()
    plain, each = (
        RIA(pattern="2:4", permute=p).prune_matrix(weight, inputs) != 0 for p in ("none", "each")
    )
    assert plain.sum() == each.sum() == weight.numel() // 2
    assert score[each].sum() > score[plain].sum()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_the_folded_model_is_saved_as_n_of_m_and_reloads(
    make_model, tokens, word_tokenizer, tmp_path, family
):
    model = make_model(family)
    report = prune(model, "ria", pattern="2:4", permute="fold", calibration=tokens)
    assert report.pattern == "2:4"
    assert verify(model, "2:4").holds
    save_model(model, word_tokenizer, tmp_path / "pruned")
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "pruned").eval()
    assert torch.equal(logits(reloaded, tokens), logits(model, tokens))
    assert verify(reloaded, "2:4").holds


def test_the_simulated_permutation_is_reported_as_such(make_model, tokens):
    model = make_model("gpt2")
    report = prune(model, "ria", pattern="2:4", permute="each", calibration=tokens)
    assert report.pattern == "2:4, inputs permuted"
    assert report.sparsity == 0.5
    for block in find_blocks(model):
        for linear in block.linears.values():
            assert ((weight_of(linear) != 0).sum(1) == weight_of(linear).shape[1] // 2).all()


def test_fold_refuses_an_unknown_architecture_before_anything_changes(make_model, tokens):
    model = make_model("opt")
    before = logits(model, tokens)
    with pytest.raises(UserError, match="cannot be folded into a 'opt' model"):
        prune(model, "ria", pattern="2:4", permute="fold", calibration=tokens)
    assert torch.equal(logits(model, tokens), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either"),
        ({"sparsity": 0.5, "exponent": -1}, "exponent -1 is not allowed"),
        ({"sparsity": 0.5, "exponent": True}, "exponent True is not allowed"),
        ({"sparsity": 0.5, "scope": "model"}, "scope 'model' is not allowed for ria"),
        (
            {"sparsity": 0.5, "permute": "each"},
            "permute 'each' orders inputs for n:m; give a pattern",
        ),
        (
            {"pattern": "2:4", "permute": "all"},
            "permute 'all' is unknown; use 'none', 'each', 'fold'",
        ),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        RIA(**options)
