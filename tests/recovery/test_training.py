"""The training loop: rates, schedules and clipping, and one clear line for bad input."""

import copy

import pytest
import torch

from prunebook.errors import UserError
from prunebook.passes.backward import next_token_loss
from prunebook.recovery.finetune import full
from prunebook.recovery.training import Training, train


def test_the_loss_is_that_of_the_predicted_tokens(make_model, tokens):
    model = make_model("llama")
    with torch.no_grad():
        log_p = model(input_ids=tokens).logits.log_softmax(-1)
    by_hand = -torch.stack(
        [log_p[i, t, tokens[i, t + 1]] for i in range(7) for t in range(15)]
    ).mean()
    torch.testing.assert_close(next_token_loss(model, tokens), by_hand)


def test_a_constant_group_keeps_its_rate(text):
    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rest, self.falls, self.stays = (
                torch.nn.Parameter(torch.zeros(())) for _ in range(3)
            )

    line = Line()
    groups = [
        {"params": [line.falls], "lr": 0.1, "maximize": True},
        {"params": [line.stays], "lr": 0.1, "maximize": True, "constant": True},
    ]
    train(
        line,
        text,
        Training(0.1, warmup=4, weight_decay=0.0),
        lambda m, _: m.rest + m.falls + m.stays,
        groups=groups,
    )
    # Adam moves by the rate where the gradient stays
    assert line.stays.item() == pytest.approx(4.0, rel=1e-3)
    # warm-up, and half of the rest
    assert line.falls.item() == pytest.approx(0.1 * (1.5 + 18), rel=0.03)
    assert line.rest.item() == pytest.approx(-line.falls.item(), rel=1e-3)


def test_all_weights_can_be_trained(make_model, text):
    model = make_model("gpt2")
    before = copy.deepcopy(model.state_dict())
    losses = train(model, text, Training(learning_rate=1e-2, batch=4))
    assert len(losses) == 10
    assert losses[-1] < losses[0] - 0.5
    assert not any(
        torch.equal(model.state_dict()[name], before[name]) for name, _ in model.named_parameters()
    )


def test_clipping_bounds_the_norm_of_the_gradients(make_model, text, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def measured(optimiser, *arguments):
        gradients = [p.grad.flatten() for group in optimiser.param_groups for p in group["params"]]
        norms.append(torch.cat(gradients).norm().item())
        return step(optimiser, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", measured)
    for clip in (None, 0.25, 1e6):
        full(make_model("llama"), text[:3], Training(learning_rate=1e-9, clip=clip))
    free = norms[:3]
    clipped = norms[3:6]
    loose = norms[6:]
    assert min(free) > 1
    assert clipped == pytest.approx([0.25] * 3, rel=1e-4)
    assert loose == pytest.approx(free)


@pytest.mark.parametrize("clip", [0, -1.0, float("nan")])
def test_a_bad_norm_is_one_line(make_model, text, clip):
    with pytest.raises(
        UserError, match=f"clip {clip!r} is not allowed; use a norm above 0, e.g. 1.0, or None"
    ):
        full(make_model("llama"), text, Training(clip=clip))
