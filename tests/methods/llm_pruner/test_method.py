"""LLM-Pruner: which groups go by each criterion, what is spared, what the result saves as, and bad
input."""

import copy
import re

import pytest
import torch
import transformers
from tests.refusals import refused_in_one_line
from tests.whole_models import logits

from prunebook import prune
from prunebook.errors import UserError
from prunebook.methods import LLMPruner
from prunebook.methods.llm_pruner.group_scores import channel_scores, unit_scores
from prunebook.methods.llm_pruner.taylor import saliences
from prunebook.models.anatomy import all_sublayers
from prunebook.models.channels import keep_channels
from prunebook.models.config import WIDTHS
from prunebook.models.loading import load_model, save_model
from prunebook.models.sizes import block_parameters

CRITERIA = ("vector", "element1", "element2", "mix", "l2")
EVERYWHERE = {"keep_first": 0, "keep_last": 0}


@pytest.mark.parametrize(
    ("family", "criterion", "aggregation"),
    [
        *(("llama", criterion, "sum") for criterion in CRITERIA),
        ("llama", "element1", "prod"),
        ("llama", "mix", "max"),
        ("llama", "vector", "last"),
        ("qwen3", "element1", "sum"),
        ("opt", "element1", "sum"),
        ("opt", "element2", "max"),
    ],
)
def test_the_lowest_scores_go(make_model, tokens, family, criterion, aggregation):
    model = make_model(family)
    before = copy.deepcopy(model)
    salience = saliences(model, tokens, criterion)
    scores = [
        unit_scores(parts, salience, criterion, aggregation) for parts in all_sublayers(model)
    ]
    prune(
        model,
        "llm-pruner",
        ratio=0.5,
        criterion=criterion,
        aggregation=aggregation,
        calibration=tokens,
        **EVERYWHERE,
    )
    for old, new, (heads, neurons) in zip(
        all_sublayers(before), all_sublayers(model), scores, strict=True
    ):
        assert (new.kv_heads, new.neurons) == (old.kv_heads // 2, old.neurons // 2)
        left = sorted(neurons.argsort()[old.neurons // 2 :].tolist())
        assert all(
            torch.equal(a.weight, b.weight[left]) for a, b in zip(new.first, old.first, strict=True)
        )
        assert torch.equal(new.last.weight, old.last.weight[:, left])
        groups = sorted(heads.argsort()[old.kv_heads // 2 :].tolist())
        of_keys = [8 * group + channel for group in groups for channel in range(8)]
        size = 8 * old.heads // old.kv_heads  # the query heads of a group follow each other
        of_queries = [size * group + channel for group in groups for channel in range(size)]
        assert torch.equal(new.key.weight, old.key.weight[of_keys])
        assert torch.equal(new.value.weight, old.value.weight[of_keys])
        assert torch.equal(new.query.weight, old.query.weight[of_queries])
        assert torch.equal(new.out.weight, old.out.weight[:, of_queries])


@pytest.mark.parametrize("criterion", CRITERIA[:4])
def test_a_dead_neuron_and_a_dead_group_go_first(make_model, tokens, criterion):
    model = make_model("llama")
    with torch.no_grad():
        for number, parts in enumerate(all_sublayers(model)):
            parts.last.weight[:, 10 + number] = 0
            parts.out.weight[:, :16] = parts.value.weight[:8] = 0
    kept = [
        (parts.last.weight.clone(), parts.out.weight[:, 16:].clone())
        for parts in all_sublayers(model)
    ]
    prune(model, "llm-pruner", ratio=1 / 48, criterion=criterion, calibration=tokens, **EVERYWHERE)
    prune(model, "llm-pruner", ratio=0.5, criterion=criterion, calibration=tokens, **EVERYWHERE)
    for number, (parts, (last, out)) in enumerate(zip(all_sublayers(model), kept, strict=True)):
        columns = {tuple(column) for column in parts.last.weight.T.tolist()}
        assert columns < {tuple(column) for column in last.T.tolist()}
        assert tuple(last[:, 10 + number].tolist()) not in columns
        assert torch.equal(parts.out.weight, out)


def test_what_adds_nothing_goes_without_a_trace(make_model, tokens):
    model = make_model("llama")
    gone = [3, 4, 20, 47]
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.down_proj.weight[:, gone] = 0
    before = logits(model, tokens)
    share = 4 * 3 * all_sublayers(model)[0].group_sizes()[1] / block_parameters(model)
    report = prune(model, "llm-pruner", sparsity=share, calibration=tokens, **EVERYWHERE)
    assert [(parts.kv_heads, parts.neurons) for parts in all_sublayers(model)] == [(2, 44)] * 3
    assert report.sparsity == pytest.approx(share)
    torch.testing.assert_close(logits(model, tokens), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sparsity", [0.05, 0.1, 0.2, 0.3])
def test_a_sparsity_is_met_to_the_nearest_neuron_and_ends_are_spared(make_model, tokens, sparsity):
    model = make_model("llama", num_hidden_layers=5)
    before = copy.deepcopy(model.model.layers)
    size = block_parameters(model)
    report = prune(
        model, LLMPruner(sparsity=sparsity, keep_first=1, keep_last=2), calibration=tokens
    )
    assert (
        abs(report.sparsity - sparsity) * size <= 2 * all_sublayers(model)[1].group_sizes()[1] / 2
    )
    for index in (0, 3, 4):
        for old, new in zip(
            before[index].parameters(), model.model.layers[index].parameters(), strict=True
        ):
            assert torch.equal(old, new)
    assert report.pattern == f"heads and neurons, {sparsity}"
    assert report.layers == {}


def test_the_default_spares_four_and_two(make_model, tokens):
    model = make_model("llama", num_hidden_layers=8)
    report = prune(model, "llm-pruner", ratio=0.5, calibration=tokens)
    assert report.reloads_with == "prunebook"
    assert [parts.neurons for parts in all_sublayers(model)] == [48] * 4 + [24] * 2 + [48] * 2
    assert getattr(model.config, WIDTHS)["kv_heads"] == [2] * 4 + [1] * 2 + [2] * 2


@pytest.mark.parametrize(
    ("criterion", "tied"), [("element1", True), ("element1", False), ("mix", True), ("l2", False)]
)
def test_the_lowest_hidden_channels_go(
    make_model, tokens, word_tokenizer, tmp_path, criterion, tied
):
    model, other = (make_model("qwen3", tie_word_embeddings=tied) for _ in range(2))
    scores = channel_scores(other, saliences(other, tokens, criterion, channels=True), criterion)
    report = prune(
        model,
        "llm-pruner",
        sparsity=0.25,
        structure="channel",
        criterion=criterion,
        calibration=tokens,
    )
    keep_channels(other, scores.argsort()[8:].tolist())
    assert torch.equal(logits(model, tokens), logits(other, tokens))
    assert report.pattern == "hidden channels, 0.25"
    assert report.sparsity == pytest.approx(0.25, abs=0.01)  # but for the norms of heads
    path = save_model(model, word_tokenizer, tmp_path / "model")
    plain = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    assert torch.equal(logits(plain, tokens), logits(model, tokens))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("ends", [EVERYWHERE, {"keep_first": 1, "keep_last": 0}])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "opt"])
def test_the_result_saves_and_reloads(make_model, tokens, word_tokenizer, tmp_path, family, ends):
    model = make_model(family)
    report = prune(model, "llm-pruner", sparsity=0.3, calibration=tokens, **ends)
    path = save_model(model, word_tokenizer, tmp_path / "model")
    again, _ = load_model(path, device="cpu")
    assert type(again) is type(model)
    assert torch.equal(logits(again, tokens), logits(model, tokens))
    assert report.to_dict()["method"] == "llm-pruner"
    if ends is EVERYWHERE and family != "opt":
        plain = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
        assert torch.equal(logits(plain, tokens), logits(model, tokens))


def test_steps_add_up(make_model, tokens):
    model = make_model("llama", num_hidden_layers=4)
    for _ in range(2):
        prune(model, "llm-pruner", ratio=0.25, keep_first=1, keep_last=1, calibration=tokens)
    assert [parts.neurons for parts in all_sublayers(model)] == [48, 27, 27, 48]
    with pytest.raises(UserError, match="the blocks differ in heads or neurons"):
        prune(model, "llm-pruner", ratio=0.25, keep_first=0, keep_last=1, calibration=tokens)
    assert [parts.neurons for parts in all_sublayers(model)] == [48, 27, 27, 48]


def test_random_goes_by_its_seed(make_model, tokens):
    cut = [make_model("llama") for _ in range(3)]
    for model, seed in zip(cut, (1, 1, 2), strict=True):
        prune(
            model,
            "llm-pruner",
            ratio=0.5,
            criterion="random",
            seed=seed,
            calibration=tokens,
            **EVERYWHERE,
        )
    same, again, other = (logits(model, tokens) for model in cut)
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


def test_ties_go_lowest_index_first(make_model, tokens):
    model = make_model("llama")
    for parts in all_sublayers(model):
        for linear in (*parts.first, parts.last, parts.query, parts.key, parts.value, parts.out):
            linear.weight.data.fill_(0.01)
        parts.last.weight.data[:, 5] = 0
        parts.out.weight.data[:, 31] = 0.02
    prune(model, "llm-pruner", ratio=0.5, criterion="l2", calibration=tokens, **EVERYWHERE)
    for parts in all_sublayers(model):
        assert (parts.out.weight[:, 15] == 0.02).all()
        assert (parts.last.weight == 0.01).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0.2}, "all blocks are spared; spare fewer"),
        ({"ratio": 0.2, "keep_first": 0, "keep_last": 4}, "all blocks are spared; spare fewer"),
        (
            {"ratio": 0.99, **EVERYWHERE},
            "ratio 0.99 of 2 key-value heads and 48 neurons takes 2 and 48; the nearest",
        ),
        (
            {"sparsity": 0.95, **EVERYWHERE},
            "sparsity 0.95 cannot be met by heads and neurons of 3 blocks, of which one",
        ),
        (
            {"sparsity": 0.01, "structure": "channel"},
            "sparsity 0.01 of 32 hidden channels, 4 at a time: the nearest is 0",
        ),
        ({"sparsity": 0.2, "calibration": None}, "method 'llm-pruner' needs calibration tokens"),
    ],
)
def test_what_a_model_does_not_allow_leaves_it_as_it_was(make_model, tokens, options, message):
    model = make_model("llama")
    before = logits(model, tokens)
    with refused_in_one_line(message):
        prune(model, "llm-pruner", **{"calibration": tokens} | options)
    assert torch.equal(logits(model, tokens), before)


@pytest.mark.parametrize("sparsity", [0.0005, 0.8, 0.95])
@pytest.mark.parametrize("ends", [{"keep_first": 1, "keep_last": 1}, EVERYWHERE])
def test_the_nearest_that_is_named_is_accepted(make_model, tokens, sparsity, ends):
    model = make_model("llama")
    if sparsity == 0.8 and ends is EVERYWHERE:
        # there is less to take now
        prune(model, "llm-pruner", sparsity=sparsity / 2, calibration=tokens, **ends)
    with pytest.raises(UserError, match="the nearest is") as caught:
        prune(model, "llm-pruner", sparsity=sparsity, calibration=tokens, **ends)
    nearest = float(re.search(r"the nearest is (\S+)$", str(caught.value))[1])
    report = prune(model, "llm-pruner", sparsity=nearest, calibration=tokens, **ends)
    assert report.sparsity == pytest.approx(nearest, abs=0.01)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (
            "gpt2",
            {"ratio": 0.5, **EVERYWHERE},
            "GPT2Block has no heads and neurons that can be told apart",
        ),
        ("gpt2", {"sparsity": 0.5, "structure": "channel"}, "GPT2Block has no heads and neurons"),
        (
            "opt",
            {"sparsity": 0.5, "structure": "channel"},
            "OPTForCausalLM cannot lose hidden channels",
        ),
    ],
)
def test_architectures_without_such_groups_are_refused(
    make_model, tokens, family, options, message
):
    model = make_model(family)
    before = logits(model, tokens)
    with pytest.raises(UserError, match=message):
        prune(model, "llm-pruner", calibration=tokens, **options)
    assert torch.equal(logits(model, tokens), before)


def test_fast_passes_choose_nearly_the_same(make_model, tokens):
    exact = make_model("llama")
    fast = make_model("llama")
    for model, precision in ((exact, "exact"), (fast, "fast")):
        prune(
            model, "llm-pruner", ratio=0.25, precision=precision, calibration=tokens, **EVERYWHERE
        )
    same = [
        (a.last.weight[:, :, None] == b.last.weight[:, None]).all(0).any(1).float().mean()
        for a, b in zip(all_sublayers(exact), all_sublayers(fast), strict=True)
    ]
    assert min(same) > 0.9
