"""Classification: the logits of the model, in order; what is no classifier is refused."""

import pytest
import torch

from prunebook.errors import UserError
from prunebook.measure.tasks import classify


def test_classes_are_those_of_the_model_in_order(make_classifier, tokens, monkeypatch):
    model = make_classifier()
    with torch.no_grad():
        expected = model(input_ids=tokens).logits
    for size in (1, 3, 7):
        monkeypatch.setattr("prunebook.measure.baseline.BATCH_TOKENS", size * tokens.shape[1])
        torch.testing.assert_close(classify(model, tokens, "exact"), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="outside the vocabulary"):
        classify(model, torch.full((1, 4), 100))


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "BertModel"])
def test_what_is_no_classifier_is_refused(make_model, make_classifier, tokens, kind):
    model = make_model("llama") if kind == "LlamaForCausalLM" else make_classifier().bert
    with pytest.raises(
        UserError, match=f"{kind} is no sequence classifier; load one, e.g. load_model"
    ):
        classify(model, tokens)
