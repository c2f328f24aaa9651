"""BESA through the blocks: what it matches, what it learns, exact counts, what it leaves alone."""

import math

import pytest
import torch
import transformers

from prunebook.criteria.wanda import wanda_score
from prunebook.errors import UserError
from prunebook.measure.zeros import verify
from prunebook.methods import BESA, Wanda, prune
from prunebook.methods.besa import method as besa_method
from prunebook.methods.besa.block_training import block_loss
from prunebook.methods.besa.learned_sparsity import LearnedRates
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.models.loading import save_model
from prunebook.passes.sequential import walk
from prunebook.passes.statistics import InputNorm
from prunebook.sparsity.patterns import Unstructured

FAMILIES = ("llama", "qwen3", "opt", "gpt2")
every_family = pytest.mark.parametrize("family", FAMILIES)


def weights(model):
    return {
        n: weight_of(x).clone() for block in find_blocks(model) for n, x in block.linears.items()
    }


def zeros(model):
    return [
        sum(int((weight_of(x) == 0).sum()) for x in block.linears.values())
        for block in find_blocks(model)
    ]


def sizes(model):
    return [sum(x.weight.numel() for x in block.linears.values()) for block in find_blocks(model)]


@pytest.fixture
def many_tokens():
    """Enough sequences for Prodigy to find its step size."""
    return torch.randint(100, (40, 16), generator=torch.Generator().manual_seed(2))


@every_family
@pytest.mark.parametrize(
    "options", [{}, {"exact_count": False}, {"granularity": "layer"}, {"reference": "pruned"}]
)
def test_without_training_it_is_wanda_at_one_half(make_model, tokens, monkeypatch, family, options):
    # Without a step every rate stays at one half.
    monkeypatch.setattr(besa_method, "train_rates", lambda *arguments, **options: None)
    plain = make_model(family)
    untrained = make_model(family)
    prune(plain, Wanda(sparsity=0.5), calibration=tokens)
    prune(untrained, BESA(sparsity=0.5, **options), calibration=tokens)
    for name, weight in weights(plain).items():
        assert torch.equal(weights(untrained)[name], weight), name


@every_family
@pytest.mark.parametrize(("granularity", "sparsity"), [("row", 0.43), ("layer", 0.6)])
def test_the_global_count_is_met_exactly_and_block_by_block(
    make_model, many_tokens, family, granularity, sparsity
):
    model = make_model(family)
    before = weights(make_model(family))
    method = BESA(sparsity=sparsity, granularity=granularity)
    report = prune(model, method, calibration=many_tokens)
    total = 0
    gone = 0
    for size, zero in zip(sizes(model), zeros(model), strict=True):
        total = total + size
        gone = gone + zero
        assert gone == math.floor(total * sparsity + 1e-6)
    assert report.sparsity == gone / total
    assert report.pattern == f"{sparsity} per model"
    assert verify(model, Unstructured(sparsity, "model")).holds
    assert len({round(value, 3) for value in report.layers.values()}) > 3
    spreads = []
    for name, weight in weights(model).items():
        # survivors keep their values
        assert torch.equal(weight, before[name] * (weight != 0)), name
        per_row = (weight == 0).sum(1)
        spreads.append(int(per_row.max() - per_row.min()))
    assert max(spreads) <= 1 if granularity == "layer" else max(spreads) > 1


def test_the_penalty_alone_comes_near_the_target(make_model, many_tokens):
    found = {}
    for penalty in (0, 5):
        method = BESA(sparsity=0.57, exact_count=False, penalty=penalty, epochs=2)
        found[penalty] = prune(make_model("llama"), method, calibration=many_tokens).sparsity
    assert found[5] == pytest.approx(0.57, abs=0.02)
    assert found[0] < 0.53


def test_a_high_sparsity_is_learned_without_the_sigmoid(make_model, many_tokens):
    method = BESA(sparsity=0.8, sigmoid=False, exact_count=False, epochs=2)
    assert prune(make_model("llama"), method, calibration=many_tokens).sparsity == pytest.approx(
        0.8, abs=0.03
    )


def test_learned_rates_lower_the_error_of_the_block(make_model, many_tokens):
    errors = {}
    for label, method in (("besa", BESA(sparsity=0.5, epochs=2)), ("wanda", Wanda(sparsity=0.5))):
        model = make_model("llama")
        block = next(walk(model, many_tokens, batch_size=1))
        wanted = torch.cat([block.run(batch).detach() for batch in block.hidden.split(1)])
        prune(model, method, calibration=many_tokens)
        with torch.no_grad():
            errors[label] = block_loss(
                torch.cat([block.run(batch) for batch in block.hidden.split(1)]), wanted
            )
    assert errors["besa"] < 0.95 * errors["wanda"]


@every_family
@pytest.mark.parametrize("reference", ["dense", "pruned"])
def test_the_reference_is_what_it_says(make_model, tokens, monkeypatch, family, reference):
    dense = [block.hidden.clone() for block in walk(make_model(family), tokens, batch_size=1)]
    seen = []

    def record(block, learned, reference, **options):
        outputs = torch.cat([block.run(batch) for batch in block.hidden.split(1)])
        seen.append((block.hidden.clone(), outputs, reference.clone()))

    monkeypatch.setattr(besa_method, "train_rates", record)
    prune(make_model(family), BESA(sparsity=0.5, reference=reference), calibration=tokens)
    assert torch.equal(seen[0][0], dense[0])
    for i, (inputs, outputs, wanted) in enumerate(seen):
        if reference == "pruned":
            torch.testing.assert_close(wanted, outputs)
        elif i + 1 < len(dense):
            torch.testing.assert_close(wanted, dense[i + 1])
        if i:
            assert (inputs - dense[i]).abs().max() > 0.1  # through pruned blocks in either case


@every_family
def test_the_gradient_is_that_of_the_whole_block(make_model, tokens, family):
    """Against autograd through a mask built weight by weight, and parameters that are really
    masked."""
    model = make_model(family)
    block = next(walk(model, tokens, batch_size=1))
    with torch.no_grad():
        wanted = block.run(block.hidden[:1])
        norms = {name: statistic.norm() for name, statistic in block.collect(InputNorm).items()}
    before = {name: weight_of(block.linears[name]) for name in norms}
    scores = {name: wanda_score(weight, norms[name]).dense() for name, weight in before.items()}
    learned = LearnedRates(scores, before, "row", True)
    learned.theta.data.normal_(0, 1, generator=torch.Generator().manual_seed(0))
    masked, rate = learned.masked()
    loss = block_loss(block.run(block.hidden[:1], masked), wanted) + 5 * ((rate - 0.4) / 0.4) ** 2
    (got,) = torch.autograd.grad(loss, learned.theta)

    theta = learned.theta.detach().clone().requires_grad_()
    beta = theta.sigmoid().softmax(-1)
    p = torch.arange(100, -1, -1) / 100
    built = {}
    removed = 0
    start = 0
    for name, weight in before.items():
        rows, width = weight.shape
        coefficients = beta[start : start + rows]
        order = scores[name].argsort(dim=1, stable=True).argsort(dim=1)
        steps = (order[None] < (p * width + 1e-3).floor()[:, None, None]).float()  # [D, out, in]
        q = 1 - torch.einsum("rd,drc->rc", coefficients, steps)
        alpha = coefficients @ p
        hard = (order >= (alpha * width + 1e-3).floor()[:, None]).float()
        built[name] = weight * (hard - q.detach() + q)
        removed = removed + alpha.sum() * width
        start = start + rows
    rate = removed / sum(weight.numel() for weight in before.values())
    loss = block_loss(block.run(block.hidden[:1], built), wanted) + 5 * ((rate - 0.4) / 0.4) ** 2
    (want,) = torch.autograd.grad(loss, theta)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * want.abs().max().item())


@pytest.mark.parametrize("granularity", ["row", "layer"])
def test_the_rest_of_the_model_and_its_gradients_are_left_alone(
    make_model, many_tokens, granularity
):
    model = make_model("opt").requires_grad_(True)
    model.lm_head.weight.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    pruned = {f"{name}.weight" for name in weights(model)}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prune(model, BESA(sparsity=0.5, granularity=granularity), calibration=many_tokens)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert {
        n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])
    } == pruned


def test_it_repeats_itself(make_model, many_tokens):
    first = make_model("llama")
    second = make_model("llama")
    for model in (first, second):
        prune(model, "besa", sparsity=0.5, calibration=many_tokens)
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(first).values(), weights(second).values(), strict=True)
    )


def test_narrow_weights_stay_narrow_and_fast_passes_change_little(make_model, many_tokens):
    model = make_model("llama").to(torch.bfloat16)
    prune(model, "besa", sparsity=0.5, calibration=many_tokens)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    assert verify(model, Unstructured(0.5, "model")).holds
    masks = []
    for precision in ("exact", "fast"):
        model = make_model("llama")
        prune(model, "besa", sparsity=0.5, calibration=many_tokens, precision=precision)
        masks.append(torch.cat([(weight == 0).flatten() for weight in weights(model).values()]))
    assert 0.85 < (masks[0] == masks[1]).float().mean() < 1


def test_a_saved_model_has_equal_logits_and_the_same_zeros(
    make_model, tokens, word_tokenizer, tmp_path
):
    model = make_model("llama")
    prune(model, "besa", sparsity=0.45, calibration=tokens)
    save_model(model, word_tokenizer, tmp_path / "pruned")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "pruned").eval()
    with torch.no_grad():
        assert torch.equal(*(m(input_ids=tokens, use_cache=False).logits for m in (model, again)))
    assert (
        verify(again, Unstructured(0.45, "model")).sparsity == model.prunebook_reports[0].sparsity
    )


def test_what_is_not_finite_is_named(make_model, tokens):
    model = make_model("llama")
    model.model.layers[0].mlp.down_proj.weight.data[3] = 3e38  # finite itself, its output is not
    with pytest.raises(
        UserError, match="outputs of block 0 hold NaN or infinity; use a wider dtype"
    ):
        prune(model, "besa", sparsity=0.5, calibration=tokens)
