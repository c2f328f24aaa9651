"""Gradual magnitude pruning: the ramp, masks after every step, exact counts, weights that
return."""

import itertools

import pytest
import torch
from tests.whole_models import linear_weights
from transformers import get_cosine_schedule_with_warmup

from prunebook.errors import UserError
from prunebook.measure.zeros import verify
from prunebook.methods import prune
from prunebook.methods.sparse_scaling_laws import gradual_masks
from prunebook.methods.sparse_scaling_laws.gradual_masks import removed_weights
from prunebook.methods.sparse_scaling_laws.method import GradualMagnitude
from prunebook.passes.backward import next_token_loss
from prunebook.sparsity.patterns import count_removed


@pytest.fixture(scope="module")
def text():
    """Forty windows of 12 token ids."""
    return torch.randint(100, (40, 12), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("family", "options"),
    [("llama", {}), ("gpt2", {"embeddings": True}), ("opt", {"ramp_start": 0.9, "ramp_end": 1})],
)
def test_every_matrix_has_the_final_sparsity_exactly(make_model, text, family, options):
    model = make_model(family)
    report = prune(model, "gradual-magnitude", sparsity=0.7, data=text, batch_size=2, **options)
    for name, weight in linear_weights(model).items():
        assert (weight == 0).sum() == count_removed(weight.numel(), 0.7), name
    assert report.sparsity == pytest.approx(0.7, abs=0.001)
    assert len(report.details) == 20
    embedding = model.get_input_embeddings().weight
    gone = count_removed(embedding.numel(), 1 - 0.3**0.5) if "embeddings" in options else 0
    assert (embedding == 0).sum() == gone
    assert not model.training


def test_the_embedding_of_a_wider_parent_keeps_as_many_weights(make_model, text):
    narrow = make_model("llama", hidden_size=16, head_dim=4)
    wide = make_model("llama")
    prune(wide, "gradual-magnitude", sparsity=0.75, data=text, embeddings=True)
    assert (
        wide.get_input_embeddings().weight.count_nonzero()
        == narrow.get_input_embeddings().weight.numel()
    )


@pytest.mark.parametrize("pattern", ["2:4", "1:4"])
def test_a_pattern_holds_in_the_end(make_model, text, pattern):
    model = make_model("llama")
    report = prune(model, "gradual-magnitude", pattern=pattern, data=text, batch_size=4)
    assert verify(model, pattern).holds
    assert report.sparsity == verify(model, pattern).sparsity == (0.5 if pattern == "2:4" else 0.75)


def test_it_is_a_loop_that_masks_after_every_step(make_model, text):
    """The same, written out: one optimiser, masks chosen and applied behind it."""
    method = GradualMagnitude(sparsity=0.6, mask_updates=4, batch_size=2, learning_rate=1e-2)
    ours = make_model("llama")
    other = make_model("llama")
    method.prune(ours, text)
    optimiser = torch.optim.AdamW(
        other.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0, fused=True
    )
    schedule = get_cosine_schedule_with_warmup(optimiser, 2, 20)
    removed = {}
    other.train()
    for step, batch in enumerate(text.split(2), 1):
        next_token_loss(other, batch).backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        for name, weight in linear_weights(other).items():
            if method.ramp.chooses_at(step, 20):
                count = count_removed(weight.numel(), 0.6 * method.ramp.share(step, 20))
                removed[name] = weight.flatten().abs().argsort(stable=True)[:count]
            if name in removed:
                weight.view(-1)[removed[name]] = 0
    for name, weight in linear_weights(ours).items():
        torch.testing.assert_close(weight, linear_weights(other)[name], rtol=1e-3, atol=1e-5)
        assert torch.equal(weight == 0, linear_weights(other)[name] == 0)


def test_a_weight_can_return(make_model, text, monkeypatch):
    chosen = []

    def spy(weight, target, share):
        chosen.append(removed_weights(weight, target, share))
        return chosen[-1]

    monkeypatch.setattr(gradual_masks, "removed_weights", spy)
    model = make_model("llama", num_hidden_layers=1)
    prune(
        model,
        "gradual-magnitude",
        sparsity=0.2,
        data=text,
        batch_size=1,
        mask_updates=10,
        learning_rate=0.1,
    )
    weights = list(linear_weights(model).values())
    times = [chosen[i : i + len(weights)] for i in range(0, len(chosen), len(weights))]
    assert len(times) == 10
    pairs = (
        pair
        for before, after in itertools.pairwise(times)
        for pair in zip(before, after, strict=True)
    )
    assert sum(int((before & ~after).sum()) for before, after in pairs) > 0
    for weight, gone in zip(weights, times[-1], strict=True):
        assert torch.equal(weight == 0, gone)


def test_sparsity_0_is_plain_training_and_narrow_weights_keep_their_dtype(make_model, text):
    model = make_model("llama").to(torch.bfloat16)
    before = {name: weight.clone() for name, weight in linear_weights(model).items()}
    report = prune(model, "gradual-magnitude", sparsity=0, data=text)
    assert report.sparsity < 1e-3
    for name, weight in linear_weights(model).items():
        assert weight.dtype is torch.bfloat16
        assert not torch.equal(weight, before[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either"),
        ({"sparsity": 1}, "sparsity 1 is not allowed"),
        ({"sparsity": 0.5, "ramp_start": -0.1}, "ramp_start -0.1 is not allowed"),
        ({"sparsity": 0.5, "ramp_start": 0.8}, "ramp_start 0.8, ramp_end 0.75 are not allowed"),
        ({"sparsity": 0.5, "ramp_end": 1.5}, "ramp_start 0.25, ramp_end 1.5 are not allowed"),
        ({"sparsity": 0.5, "mask_updates": 0}, "mask_updates 0 is not allowed"),
        ({"sparsity": 0.5, "batch_size": 1.5}, "batch_size 1.5 is not allowed"),
        ({"sparsity": 0.5, "embeddings": 1}, "embeddings 1 is not allowed"),
        ({"sparsity": 0.5, "learning_rate": -1}, "learning_rate -1 is not allowed"),
        ({"sparsity": 0.5, "precision": "half"}, "precision 'half' is not allowed"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        GradualMagnitude(**options)


def test_too_few_windows_are_refused(make_model, text):
    with pytest.raises(UserError, match=r"tokens \[3, 12\] make no step of 8 windows"):
        prune(make_model("llama"), "gradual-magnitude", sparsity=0.5, data=text[:3])
