"""`footprint`: exact counts against closed forms; times are only asked to be there."""

import copy

import pytest
import torch
import transformers

from prunebook.errors import UserError
from prunebook.measure.footprint import footprint, generation_speed, speedups
from prunebook.models.anatomy import find_stack, sublayers
from prunebook.models.loading import save_model
from prunebook.models.surgery import keep_heads, keep_neurons, remove_blocks, sync_config

WORDS = 100  # vocabulary, width, head size, tokens
D = 32
DH = 8
N = 16


def block_flops(heads, kv_heads, neurons, n=N, gated=True):
    projections = D * DH * (2 * heads + 2 * kv_heads) + (3 if gated else 2) * D * neurons
    # q k^T and its product with v, over all pairs
    return 2 * n * projections + 4 * n * n * heads * DH


def bert(cls, **changes):
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=D,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        **changes,
    )
    return cls(config).eval()


def test_llama_with_grouped_queries_in_closed_form(make_model):
    found = footprint(make_model("llama", tie_word_embeddings=False), N, speed=False)
    parameters = 2 * WORDS * D + 3 * (D * DH * (2 * 4 + 2 * 2) + 3 * D * 48 + 2 * D) + D
    assert found.parameters == parameters
    assert found.bytes == 4 * parameters
    assert found.flops == 3 * block_flops(4, 2, 48) + 2 * N * D * WORDS
    # blocks, keys and values, width, tokens, float32
    assert found.kv_cache_bytes == 3 * 2 * (2 * DH) * N * 4
    assert (found.latency, found.tokens_per_second, found.length, found.timing) == (
        None,
        None,
        N,
        None,
    )


def test_tied_embeddings_count_once_and_half_precision_takes_half(make_model):
    model = make_model("llama", tie_word_embeddings=True)
    full = footprint(model, N, speed=False)
    half = footprint(copy.deepcopy(model).bfloat16(), N, speed=False)
    assert full.parameters == half.parameters == sum(p.numel() for p in model.parameters())
    assert (full.bytes, half.bytes) == (4 * full.parameters, 2 * full.parameters)
    assert full.flops == half.flops
    assert full.kv_cache_bytes == 2 * half.kv_cache_bytes


@pytest.mark.parametrize("family", ["opt", "gpt2"])
def test_other_decoders(make_model, family):
    neurons = {"opt": 64, "gpt2": 128}[family]
    found = footprint(make_model(family), N, speed=False)
    assert found.flops == 3 * block_flops(4, 4, neurons, gated=False) + 2 * N * D * WORDS
    assert found.kv_cache_bytes == 3 * 2 * D * N * 4


def test_encoders_have_no_cache_and_write_nothing(other_work):
    other_work(0.0)
    blocks = 2 * block_flops(4, 4, 48, gated=False)
    plain = footprint(bert(transformers.BertModel), N)
    assert plain.flops == blocks + 2 * D * D  # with the pooler, of one token
    assert (plain.kv_cache_bytes, plain.tokens_per_second) == (0, None)
    assert plain.latency > 0
    classifier = footprint(
        bert(transformers.BertForSequenceClassification, num_labels=5), N, speed=False
    )
    assert classifier.flops == plain.flops + 2 * D * 5


def test_smaller_models_cost_what_is_left(make_model):
    model = make_model("llama")
    remove_blocks(model, [1])
    first, second = (sublayers(block) for block in find_stack(model)[1])
    keep_heads(first, [0, 1])  # one key-value head with both that read it
    keep_neurons(second, range(10))
    sync_config(model)
    found = footprint(model, N, speed=False)
    assert found.flops == block_flops(2, 1, 48) + block_flops(4, 2, 10) + 2 * N * D * WORDS
    assert found.kv_cache_bytes == 2 * (1 + 2) * DH * N * 4


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_bytes_are_what_the_weights_take_on_disk(make_model, word_tokenizer, tmp_path, family):
    model = make_model(family, tie_word_embeddings=True)
    save_model(model, word_tokenizer, tmp_path / "saved")
    file = (tmp_path / "saved" / "model.safetensors").read_bytes()
    header = int.from_bytes(file[:8], "little") + 8
    assert footprint(model, N, speed=False).bytes == len(file) - header


def test_times_are_measured_and_the_model_is_as_before(make_model, other_work):
    other_work(0.25)
    model = make_model("llama").train()
    before = {name: (tensor.clone(), tensor.device) for name, tensor in model.state_dict().items()}
    config = model.config.to_json_string()
    found = footprint(model, N)
    assert found.latency > 0
    assert found.tokens_per_second > 0
    assert found.timing is None
    assert all(torch.equal(model.state_dict()[name], old) for name, (old, _) in before.items())
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert model.config.to_json_string() == config
    assert found.to_dict()["flops"] == found.flops


def test_generation_writes_what_was_asked_and_is_timed_after_a_warm_up(make_model, monkeypatch):
    model = make_model("llama")
    written = []
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda *a, **k: written.append(generate(*a, **k)) or written[-1]
    )
    ticks = iter([10.0, 12.0])
    monkeypatch.setattr("prunebook.costs.time.perf_counter", lambda: next(ticks))
    assert generation_speed(model, torch.tensor([[3, 4, 5]]), 6) == 3.0  # 6 tokens in 2 s
    assert [tuple(ids.shape) for ids in written] == [(1, 5), (1, 9)]


def test_generation_refuses_no_tokens(make_model):
    with pytest.raises(UserError, match="new_tokens must be a whole number of 1 or more, not 0"):
        generation_speed(make_model("llama"), torch.tensor([[3]]), 0)


@pytest.fixture
def pair(make_model):
    """A dense model and the same with one of its three blocks removed."""
    smaller = make_model("llama")
    remove_blocks(smaller, [1])
    return make_model("llama"), smaller


TWENTY = torch.zeros(3, 20, dtype=torch.int64)


def test_models_are_timed_in_turn(pair, monkeypatch, other_work):
    calls = []
    clock = iter(range(1000))
    other_work(0.0)
    monkeypatch.setattr("prunebook.costs.time.perf_counter", lambda: float(next(clock)))

    def write(model, prompt, new_tokens):
        calls.append((pair.index(model), tuple(prompt.shape), new_tokens))
        return (2.0, 3.0, 2.0, 2.5)[len(calls) - 1]

    monkeypatch.setattr("prunebook.measure.footprint.generation_speed", write)
    found = speedups(*pair, TWENTY, rounds=2)
    assert calls == [(0, (3, 16), 8), (1, (3, 16), 8)] * 2
    assert found["reads"].ratios == (1.0, 1.0)
    assert found["writes"].ratios == (1.5, 1.25)
    assert found["reads"].what == "reads a prompt of 20 tokens"
    assert found["writes"].what == "writes 3 sequences at a time"
    assert found["reads"].detail == (
        "20 tokens a second dense, 20 smaller; each the fastest of three passes"
    )
    assert found["writes"].detail == "2 tokens a second dense, 2.75 smaller; 8 tokens after 16"
    assert not found["reads"].busy
    assert not found["writes"].busy


def test_flops_of_what_is_timed_bound_the_speedup(pair, other_work):
    other_work(0.0)
    found = speedups(*pair, TWENTY, rounds=1)
    head = 2 * D * WORDS  # of one token

    def reads(blocks):
        return blocks * block_flops(4, 2, 48, n=20) + head

    def writes(blocks):
        return blocks * (block_flops(4, 2, 48, n=16) + 7 * block_flops(4, 2, 48, n=1)) + 8 * head

    assert found["reads"].flops_ratio == reads(3) / reads(2)
    assert found["writes"].flops_ratio == writes(3) / writes(2)


def test_one_busy_round_leaves_nothing_timed(pair, other_work):
    other_work(0.0, 1.0, 0.0)
    found = speedups(*pair, TWENTY, rounds=3)
    assert [str(speedup) for speedup in found.values()] == ["machine was busy: not timed"] * 2


def test_bad_speedups(pair):
    with pytest.raises(UserError, match=r"tokens \[2, 15\] are too short; use rows of 16 or more"):
        speedups(*pair, torch.zeros(2, 15, dtype=torch.int64))
    with pytest.raises(UserError, match="rounds 0 is not allowed; use 1 or more"):
        speedups(*pair, TWENTY, rounds=0)


def test_a_busy_machine_has_a_footprint_without_times(make_model, other_work):
    model = make_model("llama")
    other_work(0.5)
    found = footprint(model, N)
    assert (found.latency, found.tokens_per_second) == (None, None)
    assert found.timing == "machine was busy: not timed"
    assert found.flops == footprint(model, N, speed=False).flops


def test_a_model_without_memory_has_the_bytes_of_one_with(make_model):
    with torch.device("meta"):
        bare = make_model("llama", tie_word_embeddings=True)
    model = make_model("llama", tie_word_embeddings=True)
    assert footprint(bare, N, speed=False) == footprint(model, N, speed=False)


@pytest.mark.parametrize("length", [0, -1, 1.5, True, None])
def test_bad_lengths(make_model, length):
    with pytest.raises(
        UserError,
        match=f"length {length!r} is not allowed; use a whole number of tokens, 1 or more",
    ):
        footprint(make_model("llama"), length)


def test_a_length_beyond_the_positions(make_model):
    with pytest.raises(
        UserError, match="length 65 has windows of 65 tokens; the model's positions end at 64"
    ):
        footprint(make_model("llama"), 65)
