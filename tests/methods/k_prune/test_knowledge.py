"""Knowledge of heads and neurons: against real masks and autograd, and against the formulas."""

import pytest
import torch
import torch.nn.functional as F

from prunebook.methods.k_prune.knowledge import knowledge, output_projections
from prunebook.methods.k_prune.predictions import predictions
from prunebook.passes.backward import TOKENS_PER_PASS


def masked(model, masks):
    """Hooks that multiply each unit's inputs of the output matrices by its mask."""
    return [
        linear.register_forward_pre_hook(
            lambda _, i, m=mask, s=size: (i[0] * m.repeat_interleave(s),)
        )
        for (linear, size), mask in zip(output_projections(model), masks, strict=True)
    ]


def divergence(logits, wanted, temperature):
    """gamma^2 KL(student || teacher) of one window, averaged over positions where there are
    some."""
    log_q, log_p = ((x / temperature).log_softmax(-1) for x in (logits, wanted))
    return temperature**2 * (log_q.exp() * (log_q - log_p)).sum(-1).mean()


def make(kind, make_model, make_classifier):
    model, teacher = (
        (make_classifier(), make_classifier())
        if kind == "bert"
        else (make_model(kind), make_model(kind))
    )
    for linear, _ in output_projections(model)[:2]:
        linear.weight.data *= 0.7  # a student that differs from the teacher
    return model, teacher


@pytest.mark.parametrize("kind", ["bert", "llama", "opt"])
def test_derivatives_by_masks_are_those_of_real_masks(make_model, make_classifier, tokens, kind):
    model, teacher = make(kind, make_model, make_classifier)
    wanted = predictions(teacher, tokens)
    found, _ = knowledge(model, tokens, wanted, temperature=3.0)
    expected = [0.0] * len(found)
    for window in tokens:
        counts = [linear.in_features // size for linear, size in output_projections(model)]
        masks = [torch.ones(units, requires_grad=True) for units in counts]
        handles = masked(model, masks)
        with torch.no_grad():
            of_teacher = teacher(input_ids=window[None]).logits[0]
        divergence(model(input_ids=window[None]).logits[0], of_teacher, 3.0).backward()
        for handle in handles:
            handle.remove()
        expected = [
            e + m.grad.double().square() / (2 * len(tokens))
            for e, m in zip(expected, masks, strict=True)
        ]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.max() > 0
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_states_lose_what_a_unit_adds(make_model, make_classifier, tokens, kind):
    model, _ = make(kind, make_model, make_classifier)
    seen = {}
    handles = [
        linear.register_forward_hook(lambda m, i, o: seen.update({m: (i[0].detach(), o.detach())}))
        for linear, _ in output_projections(model)
    ]
    with torch.no_grad():
        model(input_ids=tokens)
    for handle in handles:
        handle.remove()
    predictive, found = knowledge(model, tokens, None)
    assert all((of == 0).all() for of in predictive)
    for (linear, size), scores in zip(output_projections(model), found, strict=True):
        for unit in (0, len(scores) - 1):
            a = seen[linear][0].clone()
            a[..., unit * size : (unit + 1) * size] = 0
            lost = seen[linear][1] - F.linear(a, linear.weight, linear.bias)
            expected = lost.double().square().sum().item() / (tokens.numel() * linear.out_features)
            assert scores[unit].item() == pytest.approx(expected, rel=1e-3)


def test_only_the_sublayers_above_are_measured_and_as_before(make_classifier, make_model, tokens):
    model, teacher = make("bert", make_model, make_classifier)
    wanted = predictions(teacher, tokens)
    whole = knowledge(model, tokens, wanted)
    above = knowledge(model, tokens, wanted, first=3)
    for every, some in zip(whole, above, strict=True):
        assert len(some) == len(every) - 3
        for mine, theirs in zip(some, every[3:], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-12)


def test_scores_do_not_depend_on_batches(make_model, tokens, monkeypatch):
    model = make_model("llama")
    teacher = make_model("llama", seed=1)
    found = []
    for windows in (1, 3):
        monkeypatch.setitem(
            TOKENS_PER_PASS,
            "cpu",
            windows * tokens.shape[1],
        )
        pair = knowledge(model, tokens, predictions(teacher, tokens))
        found.append([tensor for part in pair for tensor in part])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-10)


def test_norms_are_summed_exactly_whatever_the_passes_use(make_classifier, tokens):
    model = make_classifier()
    seen = {}
    linears = output_projections(model)
    handles = [
        linear.register_forward_pre_hook(lambda m, i: seen.update({m: i[0].detach().double()}))
        for linear, _ in linears
    ]
    _, found = knowledge(model, tokens, None, precision="fast")
    for handle in handles:
        handle.remove()
    for (linear, size), scores in zip(linears, found, strict=True):
        parts = (
            seen[linear].unflatten(-1, (-1, size)),
            linear.weight.detach().double().unflatten(-1, (-1, size)),
        )
        adds = torch.einsum("ntuc,ouc->unto", *parts)
        expected = adds.square().sum((1, 2, 3)) / (tokens.numel() * linear.out_features)
        torch.testing.assert_close(scores, expected, rtol=1e-5, atol=0)


def test_a_student_that_is_the_teacher_has_no_derivative(make_classifier, tokens):
    model = make_classifier()
    predictive, _ = knowledge(model, tokens, predictions(model, tokens))
    assert all(of.max() < 1e-9 for of in predictive)
