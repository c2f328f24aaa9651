"""Predictions of a student and its teacher: their divergence, and models without any."""

import pytest
import torch

from prunebook.errors import UserError
from prunebook.methods.k_prune.predictions import divergence, predictions
from prunebook.passes.backward import windows_by_batch


def test_batches_of_predictions_are_those_of_the_passes(make_model, make_classifier, tokens):
    for model in (make_model("llama"), make_classifier()):
        with torch.no_grad():
            logits = model(input_ids=tokens).logits
        batches = predictions(model, tokens)
        assert len(batches) == len(windows_by_batch(model, tokens))
        torch.testing.assert_close(torch.cat(batches), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 7), (3, 5, 7)])
def test_the_divergence_is_summed_over_windows_and_averaged_over_positions(shape):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, *shape, generator=generator).unbind()
    before = teacher.clone()
    log_q, log_p = ((logits / 3.0).log_softmax(-1) for logits in (student, teacher))
    kl = 9 * (log_q.exp() * (log_q - log_p)).sum(-1)
    expected = kl.sum() / (1 if len(shape) == 2 else shape[1])
    torch.testing.assert_close(divergence(student, teacher, 3.0), expected)
    assert torch.equal(teacher, before)


def test_a_model_without_predictions_is_refused(make_classifier, tokens):
    with pytest.raises(
        UserError, match="BertModel predicts nothing whose change could be measured; use a model"
    ):
        predictions(make_classifier().bert, tokens)
