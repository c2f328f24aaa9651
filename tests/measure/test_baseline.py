"""The dense baseline: computed once for its weights and tokens, refused where it cannot be made."""

import pytest
import torch

from prunebook.errors import UserError
from prunebook.measure import baseline
from prunebook.measure.baseline import dense_baseline
from prunebook.measure.quality import measure_quality


def test_the_baseline_is_computed_once(make_model, tokens, cache, monkeypatch):
    model = make_model("llama")
    first = dense_baseline(model, tokens, "exact")
    monkeypatch.setattr(baseline, "_run_dense", None)  # a second computation would call it
    second = dense_baseline(make_model("llama"), tokens.clone(), "exact")
    assert torch.equal(first.hidden, second.hidden)
    assert torch.equal(first.nll, second.nll)
    assert first.hidden.shape == (7, 15, 32)
    assert len([entry for entry in (cache / "baselines").iterdir() if entry.is_dir()]) == 1


def test_the_baseline_is_of_these_weights_tokens_and_precision(make_model, tokens, cache):
    model = make_model("llama")
    baselines = [
        dense_baseline(model, tokens, "exact"),
        dense_baseline(model, tokens.flip(0), "exact"),
    ]
    baselines.append(dense_baseline(model, tokens, "fast"))
    model.model.layers[2].mlp.up_proj.weight.data[0, 0] += 1
    baselines.append(dense_baseline(model, tokens, "exact"))
    assert len({tuple(each.nll.tolist()) for each in baselines}) == 4
    assert len([folder for folder in (cache / "baselines").iterdir() if folder.is_dir()]) == 4


def test_the_baseline_outlives_the_pruning_of_its_model(make_model, tokens, cache):
    """The head is copied: pruning in place, even of the head, does not move the reference."""
    model = make_model("gpt2")
    kept = dense_baseline(model, tokens, "exact")
    before = kept.head.clone()
    model.get_output_embeddings().weight.data.mul_(2)
    assert torch.equal(kept.head, before)


def test_a_head_that_is_not_linear_is_refused(make_model, tokens, cache):
    model = make_model("llama")
    forward = model.forward

    def capped(**arguments):
        output = forward(**arguments)
        output.logits = 10 * torch.tanh(output.logits / 10)
        return output

    model.forward = capped
    with pytest.raises(UserError, match="LlamaForCausalLM changes its logits after the head"):
        dense_baseline(model, tokens)
    assert not [entry for entry in (cache / "baselines").iterdir() if entry.is_dir()]


def test_a_model_without_a_head_is_refused(make_model, tokens):
    with pytest.raises(
        UserError, match="LlamaModel has no language-model head; use a causal language model"
    ):
        measure_quality(make_model("llama").model, tokens)
