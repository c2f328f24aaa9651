"""Packed models: equal logits and tokens, what is packed and what is left, saving, and bad
input."""

import copy
import re
import weakref

import pytest
import torch
from tests.passes.families import FAMILIES
from tests.refusals import refused_in_one_line
from tests.whole_models import greedy, logits

import prunebook as pb
from prunebook.errors import UserError
from prunebook.measure.footprint import footprint
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.models.config import COMPRESSED
from prunebook.models.loading import load_model, save_model
from prunebook.models.packed import compress, restore
from prunebook.models.packed_linears import SparseLinear, UnstructuredLinear
from prunebook.models.ternary import replace_linears


def packed_layers(model):
    kinds = SparseLinear | UnstructuredLinear
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


@pytest.fixture
def pruned(make_model):
    """`pruned(family, how)`: a tiny model with one form throughout: 2:4, half of it zeros, or 15 of
    16."""

    def make(family="llama", how="2:4", **changes):
        model = make_model(family, **changes)
        pb.prune(model, "magnitude", **PRUNINGS[how])
        return model

    return make


PRUNINGS = {"2:4": {"pattern": "2:4"}, "bitmap": {"sparsity": 0.5}, "ell": {"pattern": "1:16"}}
OTHERS = [("llama", "bitmap"), ("opt", "bitmap"), ("gpt2", "bitmap"), ("llama", "ell")]


@pytest.mark.parametrize(("family", "form"), [*((family, "2:4") for family in FAMILIES), *OTHERS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_and_tokens_are_equal(pruned, tokens, family, form, dtype):
    model = pruned(family, form).to(dtype)
    dense = copy.deepcopy(model)
    names = {name for block in find_blocks(model) for name in block.linears}
    report = pb.compress(model)
    assert set(report.layers) == set(packed_layers(model)) == names
    assert {found for found, _, _ in report.layers.values()} == {form}
    assert report.left == {}
    assert report.bytes_after < report.bytes_before
    if family == "gpt2":  # Conv1D multiplies the transpose
        torch.testing.assert_close(logits(model, tokens), logits(dense, tokens))
    else:
        assert torch.equal(logits(model, tokens), logits(dense, tokens))
    prompt = tokens[:2, :5]
    assert torch.equal(greedy(model, prompt), greedy(dense, prompt))


@pytest.mark.parametrize(
    ("method", "how", "bits"),
    [("magnitude", {"pattern": "2:4"}, 17), ("wanda", {"sparsity": 0.5}, 17.1)],
)
def test_blocks_of_the_embedded_model_compute_the_same(embedded, method, how, bits):
    """Widths of 576 and 1536, and words."""
    model, tokenizer = embedded
    model = copy.deepcopy(model)
    model.model.layers, model.config.num_hidden_layers = model.model.layers[:2], 2
    calibration = torch.randint(1000, (2, 32), generator=torch.Generator().manual_seed(0))
    pb.prune(
        model, method, **how, **({} if method == "magnitude" else {"calibration": calibration})
    )
    prompt = tokenizer("The capital of France is", return_tensors="pt").input_ids
    before = logits(model, prompt)
    written = greedy(model, prompt, new=3)
    report = pb.compress(model)
    assert torch.equal(logits(model, prompt), before)
    assert torch.equal(greedy(model, prompt, new=3), written)
    assert (len(report.layers), report.left) == (14, {})
    assert report.bits_per_weight == pytest.approx(bits, abs=0.01)


def test_the_report_counts_bytes(pruned):
    model = pruned().bfloat16()
    before = footprint(model, 16, speed=False)
    report = pb.compress(model)
    after = footprint(model, 16, speed=False)
    assert report.layers["model.layers.0.mlp.down_proj"] == (
        "2:4",
        2 * 32 * 48,
        32 * 48 + 2 * 32 * 3,
    )
    assert report.bytes_before == sum(size for _, size, _ in report.layers.values())
    assert report.bytes_after == sum(size for _, _, size in report.layers.values())
    assert report.bits_per_weight == 9
    assert report.to_dict()["bits_per_weight"] == 9
    assert before.bytes - after.bytes == report.bytes_before - report.bytes_after
    assert after.flops == before.flops


def test_no_dense_weight_stays_in_memory(pruned):
    model = pruned()
    dense = [
        weakref.ref(linear) for block in find_blocks(model) for linear in block.linears.values()
    ]
    pb.compress(model)
    assert not any(reference() is not None for reference in dense)
    inside = [tensor.numel() for tensor in model.model.layers.parameters()]
    assert max(inside) == 32  # gains of norms
    layer = model.model.layers[0].mlp.down_proj
    assert {name: tuple(one.shape) for name, one in layer.named_buffers()} == {
        "values": (32, 24),
        "codes": (32, 3),
    }
    assert not layer.training


def test_each_takes_its_form_and_what_is_not_sparse_is_left_and_named(make_model, tokens):
    model = make_model("llama", intermediate_size=46)
    halved = make_model("llama", intermediate_size=24)  # an MLP of other widths
    model.model.layers[2].mlp = halved.model.layers[2].mlp
    linears = {
        f"{i}.{name.split('.')[-1]}": weight_of(linear)
        for i, block in enumerate(find_blocks(model))
        for name, linear in block.linears.items()
    }
    linears["0.q_proj"].view(-1, 4)[:, 1:3] = 0
    linears["0.k_proj"].view(-1, 4)[:, 1:] = 0  # 2:4, with zeros that only a bitmap saves
    linears["0.down_proj"][:, ::2] = 0
    linears["1.q_proj"].view(-1, 4)[:, 1:3] = 0
    linears["1.q_proj"][0, :3] = 1.0
    linears["1.k_proj"].view(-1, 16)[:, 1:] = 0
    linears["1.v_proj"].view(-1)[:204] = 0  # of 512: a weight less than 40 %
    linears["1.up_proj"].zero_()
    linears["2.q_proj"].zero_()
    linears["2.q_proj"][0, 0] = float("nan")
    linears["2.down_proj"].view(-1)[: 32 * 12] = 0
    dense = copy.deepcopy(model)
    report = pb.compress(model)
    assert {name.split("layers.")[1]: form for name, (form, _, _) in report.layers.items()} == {
        "0.self_attn.q_proj": "2:4",
        "0.self_attn.k_proj": "bitmap",
        "0.mlp.down_proj": "bitmap",
        "1.self_attn.q_proj": "bitmap",
        "1.self_attn.k_proj": "ell",
        "1.mlp.up_proj": "ell",
    }
    left = {name.split("layers.")[1]: reason for name, reason in report.left.items()}
    assert left["0.self_attn.v_proj"] == "0% of its weights are 0; it takes 40%, or 2:4"
    assert left["1.self_attn.v_proj"] == "39.8% of its weights are 0; it takes 40%, or 2:4"
    assert left["2.self_attn.q_proj"] == "weights with NaN or infinity"
    assert left["2.mlp.down_proj"] == "24 inputs, too few where weights are not 2:4"
    assert len(report.layers) + len(report.left) == 21
    torch.testing.assert_close(
        logits(model, tokens), logits(dense, tokens), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("llama", "2:4"),
        ("opt", "2:4"),
        ("gpt2", "2:4"),
        ("llama", "bitmap"),
        ("gpt2", "bitmap"),
        ("opt", "ell"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_model_reloads_with_equal_logits(
    pruned, word_tokenizer, tokens, tmp_path, family, form, dtype
):
    path = save_model(pruned(family, form), word_tokenizer, tmp_path / "dense")
    model, _ = load_model(path, device="cpu", dtype=dtype)
    # one that is left
    model.get_submodule(next(iter(find_blocks(model)[0].linears))).weight.data[:] = 1.0
    report = pb.compress(model)
    assert len(report.left) == 1
    expected = logits(model, tokens)
    path = save_model(model, word_tokenizer, tmp_path / "model")
    again, _ = load_model(path, device="cpu", dtype=dtype)
    assert torch.equal(logits(again, tokens), expected)
    assert set(packed_layers(again)) == set(report.layers)
    assert type(again) is type(model)
    third, _ = load_model(
        save_model(again, word_tokenizer, tmp_path / "again"), device="cpu", dtype=dtype
    )
    assert torch.equal(logits(third, tokens), expected)


@pytest.mark.parametrize("form", PRUNINGS)
def test_it_loads_in_another_dtype(pruned, word_tokenizer, tokens, tmp_path, form):
    model = pruned("llama", form)
    loaded = []
    for name in ("dense", "packed"):
        path = save_model(model, word_tokenizer, tmp_path / name)
        loaded.append(load_model(path, device="cpu", dtype="bfloat16")[0])
        if name == "dense":
            pb.compress(model)
    assert packed_layers(loaded[1])
    assert torch.equal(*(logits(each, tokens) for each in loaded))


@pytest.mark.parametrize("form", ["2:4", "ell"])
def test_a_state_dict_makes_the_round_trip(pruned, tokens, form):
    model = pruned(how=form)
    other = pruned(how=form, seed=1)
    for each in (model, other):
        pb.compress(each)
    assert not torch.equal(logits(model, tokens), logits(other, tokens))
    other.load_state_dict(model.state_dict())
    assert torch.equal(logits(model, tokens), logits(other, tokens))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda model: None,
            "LlamaForCausalLM has no linear in its blocks that packing makes smaller "
            "(model.layers.",
        ),
        (
            lambda model: None,
            "0.self_attn.q_proj: 0% of its weights are 0; it takes 40%, or 2:4); prune it first",
        ),
        (
            lambda model: model.double(),
            "(model.layers.0.self_attn.q_proj: weights of torch.float64); prune it first",
        ),
        (
            lambda model: replace_linears(model, norm=False),
            "(model.layers.0.self_attn.q_proj: a BitLinear computes with other weights than it "
            "holds); prune it",
        ),
    ],
)
def test_a_model_with_nothing_sparse_is_refused_and_stays(make_model, change, message):
    model = make_model("llama")
    change(model)
    before = str(model)
    with refused_in_one_line(re.escape(message)):
        compress(model)
    assert str(model) == before
    assert not hasattr(model.config, COMPRESSED)


@pytest.mark.parametrize(
    "again", [compress, lambda model: pb.prune(model, "magnitude", sparsity=0.5), find_blocks]
)
def test_a_compressed_model_is_for_inference_alone(pruned, again):
    model = pruned()
    model.model.layers[0].self_attn.q_proj.weight.data[0] = 1.0
    pb.compress(model)
    with pytest.raises(
        UserError, match="LlamaForCausalLM is compressed: its packed linears compute and do"
    ):
        again(model)


UP = "model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    "entry",
    [
        UP,
        [UP],
        {"model.layers.0": {"form": "2:4"}},
        {UP: "2:4"},
        {UP: {"form": "4:8"}},
        {UP: {"form": "bitmap"}},
        {UP: {"form": "ell", "size": -1}},
        {UP: {"form": "ell", "size": 8.0}},
        {UP: {"form": "2:4", "size": 8}},
    ],
)
def test_an_entry_that_is_none_of_ours_is_refused(make_model, entry):
    model = make_model("llama")
    setattr(model.config, COMPRESSED, entry)
    with pytest.raises(
        ValueError, match=r"prunebook_packed in config\.json does not name linears of the model"
    ):
        restore(model)
