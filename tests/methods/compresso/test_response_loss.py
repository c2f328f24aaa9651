"""The loss of responses: that of the labelled tokens, by hand."""

import torch
from tests.refusals import refused_in_one_line

from prunebook.methods.compresso.instruction_data import IGNORED
from prunebook.methods.compresso.response_loss import checked_loss, response_loss, response_nll
from prunebook.passes.backward import next_token_loss


def test_the_loss_is_of_the_labelled_tokens(make_model, tokens):
    model = make_model("llama")
    labels = tokens.clone()
    labels[:, :10] = IGNORED
    batch = torch.stack([tokens, labels], 2)
    with torch.no_grad():
        log_p = model(input_ids=tokens).logits.log_softmax(-1)
        by_hand = -torch.stack(
            [log_p[i, t, tokens[i, t + 1]] for i in range(7) for t in range(9, 15)]
        ).view(7, 6)
        torch.testing.assert_close(response_loss(model, batch), by_hand.mean())
    torch.testing.assert_close(
        response_nll(model, batch), by_hand.mean(1).double(), rtol=1e-5, atol=1e-5
    )
    model(input_ids=tokens)  # nothing was left behind
    changed = batch.clone()
    changed[:, :10, 1] = tokens[:, :10]
    assert response_loss(model, changed) != response_loss(model, batch)


def test_the_loss_goes_by_the_shape_of_the_data(make_model, tokens):
    model = make_model("llama")
    assert checked_loss(model, tokens) is next_token_loss
    assert checked_loss(model, torch.stack([tokens, tokens], 2)) is response_loss
    with refused_in_one_line("data"):
        checked_loss(model, tokens.float())
    with refused_in_one_line("labels must be token ids"):
        checked_loss(model, torch.stack([tokens, tokens + 1], 2))
