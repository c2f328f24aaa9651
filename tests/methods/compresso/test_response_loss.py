"""The loss of responses: that of the labelled tokens, by hand."""

import torch

from prunebook.methods.compresso.instruction_data import IGNORED
from prunebook.methods.compresso.response_loss import response_loss, response_nll


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
