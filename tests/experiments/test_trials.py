"""One trial: the method gets its text by the right name, and rows hold what was measured."""

import pytest
import torch

from prunebook.experiments import trials
from prunebook.experiments.trials import measure_dense, prune_with, run_trial
from prunebook.measure.baseline import dense_baseline
from prunebook.methods import GradualMagnitude, Magnitude, Wanda

TOKENS = torch.arange(64).view(4, 16)


@pytest.mark.parametrize(
    ("method", "argument"),
    [
        (Magnitude(sparsity=0.5), None),
        (Wanda(sparsity=0.5), "calibration"),
        (GradualMagnitude(sparsity=0.5), "data"),
    ],
)
def test_text_goes_in_by_the_name_that_the_method_takes(monkeypatch, method, argument):
    calls = []
    monkeypatch.setattr(trials, "prune", lambda *positional, **named: calls.append(named))
    prune_with(None, method, TOKENS)
    assert list(calls[0]) == [name for name in [argument] if name]


def test_a_trial_leaves_the_model_as_it_is_and_counts_its_zeros(make_model, cache, other_work):
    other_work(0.0)
    model = make_model("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    baseline = dense_baseline(model, TOKENS, "exact")
    method = Magnitude(sparsity=0.5)
    fields = run_trial(model, method, None, TOKENS, baseline, 16, speed=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    dense = measure_dense(model, baseline, 16, speed=False)
    assert dense.zeros == 0
    assert fields["nonzero_parameters"] == model.num_parameters() - dense.prunable // 2
    assert fields["untimed"] == ()
    row = trials.Trial("half", None, **fields).row()
    assert list(dense.row()) == [name for name in row if name in dense.row()]
    assert set(row) - set(dense.row()) == {
        "evaluation_tokens_per_second",
        "seconds",
        "peak_memory",
    }
