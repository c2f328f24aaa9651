"""Fine-tuning: what is trained changes and the rest stays; adapters are merged; bad input."""

import copy

import pytest
import torch
from tests.refusals import refused_in_one_line
from tests.two_processes import trained, trained_together

from prunebook.errors import UserError
from prunebook.measure.tasks import classify
from prunebook.passes.backward import next_token_loss
from prunebook.recovery.finetune import classifier, full, lora, query_value_names
from prunebook.recovery.training import Training

MLP = ["gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_learn_are_merged_and_touch_their_targets_only(make_model, text, checkpointing):
    model = make_model("llama")
    before = copy.deepcopy(model.state_dict())
    training = Training(learning_rate=3e-2, warmup=2, batch=2, gradient_checkpointing=checkpointing)
    losses = lora(model, text, training, targets=MLP, rank=4)
    assert len(losses) == 20
    assert losses[-1] < losses[0] - 0.5
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {name for name in before if any(f"{target}.weight" in name for target in MLP)}
    for name in changed:  # of low rank
        assert torch.linalg.matrix_rank(model.state_dict()[name] - before[name], rtol=1e-3) <= 4
    assert set(model.state_dict()) == set(before)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    with torch.no_grad():
        assert next_token_loss(model, text[:2]) < losses[-1] + 0.1


def test_the_same_seed_gives_the_same_model(make_model, text):
    models = [make_model("llama") for _ in range(3)]
    losses = [
        lora(m, text[:10], Training(seed=seed), targets=MLP)
        for m, seed in zip(models, (0, 0, 1), strict=True)
    ]
    weights = [m.model.layers[0].mlp.up_proj.weight for m in models]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"targets": ["gate"]},
            r"targets \['gate'\] are no linears here; use some of down_proj, gate_proj",
        ),
        ({"targets": []}, r"targets \[\] are no linears"),
        ({"targets": MLP, "rank": 0}, "rank 0 is not allowed for lora"),
        (
            {"targets": MLP, "training": Training(batch=41)},
            "make no step of 41 windows of 2 tokens or more; give more",
        ),
        (
            {"targets": MLP, "training": Training(learning_rate=1e30)},
            "the loss of step . is nan; use a smaller",
        ),
    ],
)
def test_bad_input_is_one_line(make_model, text, named, message):
    with refused_in_one_line(message):
        lora(make_model("llama"), text, **named)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_full_trains_everything_and_restores_the_flags(make_model, text, family):
    plain = make_model(family).requires_grad_(False)
    recomputed = make_model(family)
    before = copy.deepcopy(plain.state_dict())
    if family == "gpt2":  # its dropout too is computed again as it was
        assert plain.config.resid_pdrop > 0
    losses = full(plain, text, Training(learning_rate=1e-2, batch=4))
    assert losses[-1] < losses[0] - 0.5
    assert not any(
        torch.equal(plain.state_dict()[name], before[name]) for name, _ in plain.named_parameters()
    )
    assert not any(p.requires_grad or p.grad is not None for p in plain.parameters())
    again = full(
        recomputed, text, Training(learning_rate=1e-2, batch=4, gradient_checkpointing=True)
    )
    assert again == pytest.approx(losses, rel=1e-4)
    assert all(parameter.requires_grad for parameter in recomputed.parameters())
    assert not recomputed.is_gradient_checkpointing
    assert not any(module._forward_hooks for module in recomputed.modules())


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_bfloat16_weights_are_trained_in_float32(make_model, text, precision):
    """Steps far below the spacing of bfloat16 add up: the result is that of float32, rounded once
    at the end."""
    training = Training(learning_rate=1e-5, precision=precision)
    narrow = make_model("llama").to(torch.bfloat16)
    wide = copy.deepcopy(narrow).float()
    before = copy.deepcopy(narrow.state_dict())
    next_token_loss(narrow, text[:1]).backward()  # a gradient that is there already does not count
    assert full(narrow, text[:10], training) == full(wide, text[:10], training)
    assert {parameter.dtype for parameter in narrow.parameters()} == {torch.bfloat16}
    for name, value in wide.state_dict().items():
        assert torch.equal(narrow.state_dict()[name], value.to(torch.bfloat16))
    assert any(not torch.equal(before[name], value) for name, value in narrow.state_dict().items())


def test_bfloat16_weights_come_back_when_training_fails(make_model, text):
    model = make_model("llama").to(torch.bfloat16)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match="clip"):
        full(model, text, Training(clip=-1.0))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert {value.dtype for value in model.state_dict().values()} == {torch.bfloat16}


def test_a_classifier_learns_its_labels(make_classifier, tokens):
    calm = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = make_classifier(**calm)
    other = make_classifier(**calm)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    before = classify(model, tokens, "exact")
    training = Training(learning_rate=1e-2, warmup=4, batch=7)
    losses = classifier(model, tokens.repeat(40, 1), labels.repeat(40), training)
    expected = torch.nn.functional.cross_entropy(before, labels).item()
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    assert losses[-1] < 0.2
    assert torch.equal(classify(model, tokens, "exact").argmax(1), labels)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    classifier(other, tokens.repeat(40, 1), labels.repeat(40), training)
    assert torch.equal(classify(other, tokens, "exact"), classify(model, tokens, "exact"))
    with pytest.raises(UserError, match=r"labels \[3\] are not one for each of 7 windows"):
        classifier(model, tokens, labels[:3])
    for wrong in (5, -1):
        with pytest.raises(UserError, match=f"label {wrong} is none of the model's 5 classes"):
            classifier(model, tokens, torch.full_like(labels, wrong))


def test_a_classifier_is_trained_on_windows_as_long_as_its_positions(make_classifier):
    model = make_classifier(max_position_embeddings=16)
    text = torch.randint(100, (4, 16), generator=torch.Generator().manual_seed(0))
    assert len(classifier(model, text, torch.tensor([0, 1, 2, 3]), Training(batch=2))) == 2
    with pytest.raises(
        UserError, match="tokens has windows of 17 tokens; the model's positions end at 16"
    ):
        classifier(model, torch.cat([text, text[:, :1]], 1), torch.tensor([0, 1, 2, 3]))
    with pytest.raises(UserError, match="outside the vocabulary"):
        classifier(model, text + 100, torch.tensor([0, 1, 2, 3]))


def test_two_processes_train_what_one_trains(tmp_path, make_model):
    """Each takes half of every step's windows; their gradients are averaged."""
    first_process, second_process = trained_together(tmp_path, make_model)
    alone = trained(1, make_model)
    for kind, (losses, weights) in alone.items():
        first, one = first_process[kind]
        second, other = second_process[kind]
        assert losses == pytest.approx(
            [sum(both) / 2 for both in zip(first, second, strict=True)], rel=1e-4
        )
        assert torch.equal(one, other)
        torch.testing.assert_close(one, weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_queries_and_values_have_the_names_that_adapters_take(make_model, family):
    assert sorted(query_value_names(make_model(family))) == ["q_proj", "v_proj"]
