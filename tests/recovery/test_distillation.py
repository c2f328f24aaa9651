"""Distillation: the terms of the loss, whole runs, and bad input."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from tests.interrupting import interrupted_at
from tests.refusals import refused_in_one_line

from prunebook.errors import UserError
from prunebook.recovery import distillation
from prunebook.recovery.distillation import distill
from prunebook.recovery.training import Training


@pytest.fixture
def pair(make_model):
    """A student that is its teacher with noise on all weights, and that teacher."""
    student = make_model("llama")
    teacher = make_model("llama")
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(
                0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
            )
    return student, teacher


def first_loss(student, teacher, batch, **named):
    """The loss before any step, by the run itself."""
    return distill(student, teacher, batch, Training(batch=len(batch)), **named)[0]


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("hidden", [(), [(0, 0), (2, 2)]])
def test_a_student_like_its_teacher_has_nothing_to_learn(make_model, tokens, direction, hidden):
    student = make_model("llama")
    teacher = make_model("llama")
    lesson = distillation.DistillationStep(student, teacher, direction, 1.0, 0.0, hidden)
    loss = lesson(tokens)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert max(parameter.grad.abs().max() for parameter in student.parameters()) < 1e-5
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("next_token", [0.0, 0.5])
def test_the_terms_of_the_loss(pair, tokens, direction, temperature, next_token):
    with torch.no_grad():
        q, p = ((model(input_ids=tokens).logits / temperature).softmax(-1) for model in pair)
        if direction == "reverse":
            p, q = q, p
        kl = temperature**2 * (p * (p / q).log()).sum(-1).mean()
        nll = pair[0](input_ids=tokens, labels=tokens).loss  # transformers' own
    loss = first_loss(
        *pair, tokens, direction=direction, temperature=temperature, next_token=next_token
    )
    assert loss == pytest.approx((kl + next_token * nll).item(), rel=1e-4)


def test_hidden_states_count_as_much_as_logits(pair, tokens):
    """The term's value is KL, its gradient KL / D times that of D, by `output_hidden_states` of
    transformers."""
    student, teacher = pair
    hidden = [(0, 1), (1, 1)]
    states, wanted = (
        model(input_ids=tokens, output_hidden_states=True).hidden_states for model in pair
    )
    cosines = [
        (F.normalize(states[i + 1], dim=-1) * F.normalize(wanted[j + 1], dim=-1)).sum(-1)
        for i, j in hidden
    ]
    distance = 1 - sum(cosine.mean() for cosine in cosines) / 2
    p, q = (model(input_ids=tokens).logits.softmax(-1) for model in (teacher, student))
    kl = (p.detach() * (p.detach() / q).log()).sum(-1).mean()
    parameters = list(student.parameters())
    for_kl = torch.autograd.grad(kl, parameters, retain_graph=True)
    for_states = torch.autograd.grad(distance, parameters, allow_unused=True)
    loss = distillation.DistillationStep(student, teacher, "forward", 1.0, 0.0, hidden)(tokens)
    loss.backward()
    assert loss.item() == pytest.approx(2 * kl.item(), rel=1e-4)
    for parameter, one, other in zip(parameters, for_kl, for_states, strict=True):
        expected = one + (0 if other is None else other * (kl / distance).item())
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5)


def test_states_of_another_width_are_mapped_and_the_map_is_dropped(make_model, text):
    student = make_model(
        "llama", hidden_size=24, head_dim=8, num_attention_heads=2, num_key_value_heads=2
    )
    teacher = make_model("llama")
    names = set(student.state_dict())
    kept = weights(teacher)
    lesson = distillation.DistillationStep(student, teacher, "forward", 1.0, 0.0, [(1, 1), (0, 2)])
    assert lesson.map.weight.shape == (32, 24)
    lesson(text[:2]).backward()
    assert lesson.map.weight.grad.abs().max() > 0
    losses = distill(
        student, teacher, text, Training(learning_rate=1e-2, batch=2), hidden=[(1, 1), (0, 2)]
    )
    assert losses[-1] < 0.8 * losses[0]
    assert set(student.state_dict()) == names
    assert torch.equal(weights(teacher), kept)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_the_student_comes_close_and_all_else_stays(make_model, text, family):
    student = make_model(family, seed=1)
    teacher = make_model(family).train()
    next(iter(student.parameters())).requires_grad_(False)
    flags = [parameter.requires_grad for parameter in student.parameters()]
    before = copy.deepcopy(student.state_dict())
    kept = weights(teacher)
    losses = distill(
        student, teacher, text, Training(learning_rate=1e-2, batch=2, clip=1.0), hidden=[(1, 1)]
    )
    assert len(losses) == 20
    assert losses[-1] < 0.6 * losses[0]
    assert not any(
        torch.equal(student.state_dict()[name], before[name])
        for name, _ in student.named_parameters()
    )
    assert [parameter.requires_grad for parameter in student.parameters()] == flags
    assert all(
        parameter.grad is None for model in (student, teacher) for parameter in model.parameters()
    )
    assert not any(
        module._forward_hooks for block in (student, teacher) for module in block.modules()
    )
    assert torch.equal(weights(teacher), kept)
    assert teacher.training
    assert not student.training


def test_recomputed_activations_and_fast_products_give_the_same_student(pair, text):
    named = {"hidden": [(0, 0), (1, 2)], "next_token": 0.5}
    results = []
    for checkpointing, precision in (
        (False, "exact"),
        (True, "exact"),
        (False, "fast"),
        (True, "fast"),
    ):
        student = copy.deepcopy(pair[0])
        training = Training(
            1e-3, batch=8, gradient_checkpointing=checkpointing, precision=precision
        )
        distill(student, pair[1], text, training, **named)
        assert not student.is_gradient_checkpointing
        results.append(weights(student))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(results[3], results[2], rtol=0, atol=1e-6)
    assert (results[2] - results[0]).norm() < 0.5 * (results[0] - weights(pair[0])).norm()


def test_a_broken_run_goes_on_with_the_same_result(make_model, pair, text, tmp_path, monkeypatch):
    named = {"hidden": [(1, 1)], "temperature": 2.0}
    text = text[:20]
    whole, broken, teacher = *(make_model("llama", hidden_size=24) for _ in range(2)), pair[1]
    expected = distill(whole, teacher, text, Training(learning_rate=1e-2), **named)
    training = Training(learning_rate=1e-2, checkpoint=tmp_path / "state", checkpoint_every=4)
    breaks = interrupted_at(10, distillation.DistillationStep.forward)
    monkeypatch.setattr(distillation.DistillationStep, "forward", breaks)
    with pytest.raises(KeyboardInterrupt):
        distill(broken, teacher, text, training, **named)
    monkeypatch.undo()
    for other in (
        {"teacher": pair[0]},
        {"direction": "reverse"},
        {"temperature": 1.0},
        {"hidden": [(1, 2)]},
        {"next_token": 1.0},
        {"training": Training(**{**vars(training), "clip": 1.0})},
    ):
        arguments = {"teacher": teacher, "training": training} | named | other
        with pytest.raises(UserError, match="is the checkpoint of another run"):
            distill(make_model("llama", hidden_size=24), tokens=text, **arguments)
    assert distill(broken, teacher, text, training, **named) == expected
    assert torch.equal(weights(whole), weights(broken))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"direction": "both"}, "direction 'both' is unknown; use 'forward' or 'reverse'"),
        ({"temperature": 0}, "temperature 0 is not allowed; use a number above 0"),
        ({"temperature": math.nan}, "temperature nan is not allowed"),
        ({"next_token": -1}, "next_token -1 is not allowed; use a weight of 0 or more"),
        (
            {"hidden": [(1, 1), (0, 3)]},
            r"hidden pair \(0, 3\) names no blocks; use \(student's, teacher's\) up to \(2, 2",
        ),
        ({"hidden": [(-1, 0)]}, r"hidden pair \(-1, 0\) names no blocks"),
        ({"hidden": [[0]]}, r"hidden pair \(0,\) names no blocks"),
        ({"training": Training(clip=0)}, "clip 0 is not allowed; use a norm above 0"),
        ({"training": Training(batch=41)}, "make no step of 41 windows"),
    ],
)
def test_bad_input_is_one_line(pair, text, named, message):
    before = weights(pair[0])
    with refused_in_one_line(message):
        distill(*pair, text, **named)
    assert torch.equal(weights(pair[0]), before)


def test_a_teacher_must_be_another_model_of_the_same_words(make_model, text):
    student = make_model("llama")
    with pytest.raises(
        UserError, match="the teacher predicts 120 words, not 100; use the dense model"
    ):
        distill(student, make_model("llama", vocab_size=120), text)
    for two in ((student.model, student), (student, student.model)):
        with pytest.raises(
            UserError, match="LlamaModel has no language-model head; use a causal language model"
        ):
            distill(*two, text)
    with pytest.raises(UserError, match="the teacher is the student itself; use the dense model"):
        distill(student, student, text)
    with pytest.raises(
        UserError, match="tokens has windows of 16 tokens; the model's positions end at 8"
    ):
        distill(student, make_model("llama", max_position_embeddings=8), text)


def test_after_an_error_the_models_are_as_before(pair, text, monkeypatch):
    pair[0].requires_grad_(False)
    pair[1].train()
    forward = distillation.DistillationStep.forward
    monkeypatch.setattr(
        distillation.DistillationStep, "forward", lambda *arguments: forward(*arguments) * math.nan
    )
    with pytest.raises(UserError, match="the loss of step 1 is nan; use a smaller learning rate"):
        distill(*pair, text, Training(gradient_checkpointing=True))
    assert not any(
        parameter.requires_grad or parameter.grad is not None for parameter in pair[0].parameters()
    )
    assert not pair[0].is_gradient_checkpointing
    assert pair[1].training
