"""`compare`: every method on a copy of the model, every calibration draw, the same held-out
windows."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from prunebook.errors import UserError
from prunebook.experiments.compare import compare, sweep
from prunebook.measure.baseline import dense_baseline
from prunebook.measure.footprint import footprint
from prunebook.measure.quality import measure_quality
from prunebook.methods import Magnitude, Wanda, prune

VOCABULARY = 100


def draw(seed, windows=4):
    return torch.randint(VOCABULARY, (windows, 16), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def compared(make_model, cache, other_work):
    model = make_model("llama")
    other_work(0.0)
    held_out = draw(99, windows=5)
    dense = dense_baseline(model, held_out, "exact")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    methods = {"by size": Magnitude(sparsity=0.5), "Wanda": Wanda(sparsity=0.25)}
    draws = [draw(seed) for seed in range(3)]
    comparison = compare(
        model, methods, calibrations=draws, held_out=held_out, dense=dense, progress=False
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not hasattr(model, "prunebook_reports")
    return model, held_out, dense, draws, comparison


def test_losses_have_a_row_a_seed_and_a_column_a_window(compared):
    *_, dense, _, comparison = compared
    for label in ("dense", "by size", "Wanda"):
        assert comparison.nll(label).shape == (3, 5)
        assert comparison.perplexity(label).shape == (3,)
    assert (comparison.nll("dense") == dense.nll.numpy()).all()
    assert (comparison.nll("by size") == comparison.nll("by size")[0]).all()
    assert len(np.unique(comparison.nll("Wanda"), axis=0)) == 3


def test_recorded_losses_are_those_of_each_draw_once(compared):
    *_, dense, _, comparison = compared
    losses = comparison.losses()
    assert {label: np.shape(rows) for label, rows in losses.items()} == {
        "dense": (1, 5),
        "by size": (1, 5),
        "Wanda": (3, 5),
    }
    np.testing.assert_allclose(losses["Wanda"], comparison.nll("Wanda"), atol=1e-6)
    np.testing.assert_allclose(losses["dense"][0], dense.nll.numpy(), atol=1e-6)


def test_gap_counts_the_draws_that_the_two_depend_on(compared):
    comparison = compared[-1]
    assert comparison.gap("dense", "by size").draws == 0
    assert comparison.gap("by size", "Wanda").draws == 3
    assert comparison.gap("by size", "Wanda").windows == 5


def test_with_one_draw_only_what_depends_on_it_is_of_this_draw(compared):
    every = compared[-1]
    first = replace(every, trials=[trial for trial in every.trials if not trial.seed], seeds=1)
    assert first.gap("dense", "by size").draws == 0
    assert first.gap("by size", "Wanda").this_draw_only


def test_rows_tell_the_ratio_to_the_dense_model(compared):
    rows = compared[-1].rows()
    dense = rows[0]["perplexity"]
    assert rows[0]["perplexity_ratio"] == 1
    assert [row["perplexity_ratio"] for row in rows] == [row["perplexity"] / dense for row in rows]


def test_each_trial_is_the_method_pruned_and_measured_alone(compared, make_model):
    _, held_out, dense, draws, comparison = compared
    for seed, calibration in enumerate(draws):
        alone = make_model("llama")
        prune(alone, Wanda(sparsity=0.25), calibration=calibration)
        expected = measure_quality(alone, held_out, dense, "exact")
        np.testing.assert_allclose(comparison.nll("Wanda")[seed], expected.nll.numpy(), rtol=1e-6)
        assert comparison.perplexity("Wanda")[seed] == pytest.approx(expected.perplexity, rel=1e-5)


def test_rows_are_one_a_trial_with_the_dense_model_first(compared):
    model, _, dense, _, comparison = compared
    rows = comparison.rows()
    assert [(row["label"], row["seed"]) for row in rows] == [
        ("dense", None),
        ("by size", None),
        ("Wanda", 0),
        ("Wanda", 1),
        ("Wanda", 2),
    ]
    assert rows[0]["perplexity"] == math.exp(dense.nll.mean().item())
    assert [row["sparsity"] for row in rows] == [0, 0.5, 0.25, 0.25, 0.25]
    linear_weights = 3 * (32 * (32 + 16 + 16 + 32) + 3 * 32 * 48)
    parameters = model.num_parameters()
    assert [row["nonzero_parameters"] for row in rows] == [
        parameters - round(linear_weights * row["sparsity"]) for row in rows
    ]
    assert [row["bytes_on_disk"] for row in rows] == [4 * parameters] * 5  # zeros are stored dense
    for timed in ("tokens_per_second", "latency"):
        assert [row[timed] is not None for row in rows] == [True, True, True, False, False]
    assert all(row["seconds"] > 0 and row["evaluation_tokens_per_second"] > 0 for row in rows[1:])
    assert not any(row["machine_busy"] for row in rows)
    costs = footprint(model, 16, speed=False)
    assert {(row["flops"], row["kv_cache_bytes"]) for row in rows} == {
        (costs.flops, costs.kv_cache_bytes)
    }
    assert all(row["kl"] > 0 for row in rows[1:])
    assert comparison.mean("Wanda", "kl") == pytest.approx(np.mean([row["kl"] for row in rows[2:]]))
    assert [trial.seed for trial in comparison.of("Wanda")] == [0, 1, 2]


def test_what_other_work_disturbed_is_not_in_the_rows(make_model, cache, other_work):
    model = make_model("llama")
    held_out = draw(99)
    # First draw: prune, footprint, evaluate. Second: prune, evaluate. Last: the dense footprint.
    other_work(1.0, 0.0, 0.0, 0.0, 1.0, 1.0)
    comparison = compare(
        model,
        {"Wanda": Wanda(sparsity=0.5)},
        calibrations=[draw(0), draw(1)],
        held_out=held_out,
        dense=dense_baseline(model, held_out),
        progress=False,
    )
    dense, first, second = comparison.rows()
    assert (dense["latency"], dense["tokens_per_second"]) == (None, None)
    assert first["seconds"] is None
    assert first["latency"] > 0
    assert first["tokens_per_second"] > 0
    assert first["evaluation_tokens_per_second"] > 0
    assert second["seconds"] > 0
    assert second["evaluation_tokens_per_second"] is None
    assert [row["machine_busy"] for row in (dense, first, second)] == [True, True, True]
    assert comparison.trials[0].report.seconds > 0
    assert comparison.mean("Wanda", "seconds") == second["seconds"]
    with pytest.raises(UserError, match="latency of 'dense' was not measured; see its row"):
        comparison.mean("dense", "latency")


def test_without_speed_no_latency_is_measured(make_model, cache, other_work):
    model = make_model("llama")
    held_out = draw(99)
    other_work(0.0)
    comparison = compare(
        model,
        {"m": Magnitude(sparsity=0.5)},
        calibrations=[],
        held_out=held_out,
        dense=dense_baseline(model, held_out),
        speed=False,
        progress=False,
    )
    dense, pruned = comparison.rows()
    for row in (dense, pruned):
        assert (row["latency"], row["tokens_per_second"]) == (None, None)
        assert row["machine_busy"] is False
    assert pruned["seconds"] > 0
    assert comparison.protocol["footprint"] == "FLOPs and key-value cache of 16 tokens, batch 1"
    assert "generation" not in comparison.protocol


def test_protocol_says_how_it_was_measured(compared):
    protocol = compared[-1].protocol
    assert protocol["seeds"] == 3
    assert protocol["calibration"] == "4 x 16 tokens"
    assert protocol["evaluation"].startswith("5 x 16 tokens")
    assert protocol["footprint"] == "FLOPs, latency and key-value cache of 16 tokens, batch 1"
    assert protocol["dtype"] == "float32"
    assert protocol["evaluation_precision"] == "exact"


def test_methods_without_data_need_no_calibration(make_model, cache, other_work):
    model = make_model("opt")
    held_out = draw(5)
    other_work(0.0)
    dense = dense_baseline(model, held_out)
    comparison = compare(
        model,
        {"m": Magnitude(sparsity=0.5)},
        calibrations=[],
        held_out=held_out,
        dense=dense,
        progress=False,
    )
    assert comparison.nll("m").shape == comparison.nll("dense").shape == (1, 4)


def test_a_sweep_measures_what_a_comparison_measures(compared):
    model, held_out, _, draws, comparison = compared
    methods = {"by size": Magnitude(sparsity=0.5), "Wanda": Wanda(sparsity=0.25)}
    swept = sweep(
        model, methods, calibration=draws[0], held_out=held_out, precision="exact", progress=False
    )
    assert list(swept) == ["by size", "Wanda"]
    for label, nll in swept.items():
        np.testing.assert_array_equal(nll, comparison.nll(label)[:1])


def test_a_label_that_was_not_measured_is_refused(compared):
    comparison = compared[-1]
    with pytest.raises(UserError, match="'RIA' was not measured; there are dense, by size, Wanda"):
        comparison.nll("RIA")
