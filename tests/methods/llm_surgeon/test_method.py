"""Shots over whole models: exact counts, what is dead, biases, baselines, and one shot beside a
plain float64 loop."""

import math

import pytest
import torch
import torch.nn.functional as F

from prunebook.criteria.obs import obs_score
from prunebook.errors import UserError
from prunebook.measure.zeros import verify
from prunebook.methods import LLMSurgeon, prune
from prunebook.methods.llm_surgeon.fisher import SecondMoment
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.models.loading import load_model, save_model
from prunebook.passes.backward import backpropagate
from prunebook.sparsity.patterns import Unstructured

FAMILIES = ("llama", "qwen2", "qwen3", "opt", "gpt2")
STRUCTURED = {"structure": "rows+columns"}


def linears(model):
    return {name: linear for block in find_blocks(model) for name, linear in block.linears.items()}


def weights(model):
    return {name: weight_of(linear).clone() for name, linear in linears(model).items()}


@pytest.fixture
def make_biased(make_model):
    """Tiny models whose biases are not the zeros that they start with, which would count as dead
    columns."""

    def make(family):
        model = make_model(family)
        generator = torch.Generator().manual_seed(0)
        for linear in linears(model).values():
            if linear.bias is not None:
                linear.bias.data.normal_(0, 0.1, generator=generator)
        return model

    return make


def loss(model, tokens):
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.double().flatten(0, 1), tokens[:, 1:].flatten()).item()


def factors(model, tokens):
    """`name -> (W with bias, G, A)` in float64, from one plain backward pass a window."""
    seen = {n: [] for n in linears(model)}
    grads = {n: [] for n in linears(model)}

    def keep(name):
        def hook(_, inputs, output):
            x = inputs[0].detach().flatten(0, -2).double()
            bias = linears(model)[name].bias
            seen[name].append(
                x if bias is None else torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
            )
            output.register_hook(lambda g: grads[name].append(g.flatten(0, -2).double()))

        return hook

    handles = [linear.register_forward_hook(keep(name)) for name, linear in linears(model).items()]
    for row in tokens:
        logits = model(input_ids=row[None], use_cache=False).logits[0, :-1]
        F.cross_entropy(logits, row[1:], reduction="sum").backward()
    for handle in handles:
        handle.remove()
    found = {}
    for name, linear in linears(model).items():
        x = torch.cat(seen[name])
        g = torch.cat(grads[name])
        W = weight_of(linear).double()
        if linear.bias is not None:
            W = torch.cat([W, linear.bias.detach().double()[:, None]], dim=1)
        found[name] = W, g.T @ g / len(g), x.T @ x / len(x)
    return found


def inverse(M, damping):
    """Damped by the mean over what is alive; what is dead, zero in M, gets zeros."""
    alive = (M.diagonal() > 0).nonzero().flatten()
    living = M[alive][:, alive]
    found = torch.zeros_like(M)
    found[alive[:, None], alive] = torch.linalg.inv(
        living + damping * living.diagonal().mean() * torch.eye(len(alive))
    )
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_entries_of_one_shot_are_those_of_a_plain_loop(make_biased, tokens, family):
    model = make_biased(family)
    reference = make_biased(family)
    expected = {}
    costs = {}
    for name, (W, G, A) in factors(reference, tokens).items():
        Gi = inverse(G, 0.1)
        Ai = inverse(A, 0.1)
        width = weight_of(linears(reference)[name]).shape[1]
        costs[name] = (W**2 / (2 * Gi.diagonal()[:, None] * Ai.diagonal()))[:, :width].nan_to_num(
            posinf=0
        )
        expected[name] = W, Gi, Ai
    everything = torch.cat([cost.flatten() for cost in costs.values()])
    count = int(0.3 * len(everything))
    threshold = everything.sort().values[count - 1]
    report = prune(
        model,
        "llm-surgeon",
        calibration=tokens,
        sparsity=0.3,
        shots=1,
        damping=0.1,
        max_correlate=40,
    )
    assert round(report.sparsity * len(everything)) == count
    for name, (W, Gi, Ai) in expected.items():
        removed = torch.zeros(W.shape, dtype=torch.bool)
        removed[:, : costs[name].shape[1]] = costs[name] <= threshold
        linear = linears(model)[name]
        assert torch.equal(weight_of(linear) == 0, removed[:, : weight_of(linear).shape[1]]), name
        group: list[int] = []
        groups = [group]
        living = removed & (Gi.diagonal()[:, None] * Ai.diagonal() > 0)
        for row, number in enumerate(living.sum(1).tolist()):
            if group and living[group].sum() + number > 40:
                groups.append(group := [])
            group.append(row)
        # one after the other, with the whole matrix G^-1 (x) A^-1 of the entries
        for rows in groups:
            r, c = (living & torch.isin(torch.arange(len(W)), torch.tensor(rows))[:, None]).nonzero(
                as_tuple=True
            )
            if len(r):
                K = Gi[r][:, r] * Ai[c][:, c]
                V = torch.zeros_like(W)
                V[r, c] = torch.linalg.solve(K, W[r, c])
                W = W - Gi @ V @ Ai
        W = W.masked_fill(removed, 0)
        width = weight_of(linear).shape[1]
        torch.testing.assert_close(weight_of(linear).double(), W[:, :width], rtol=1e-2, atol=1e-3)
        if linear.bias is not None:
            torch.testing.assert_close(
                linear.bias.detach().double(), W[:, -1], rtol=1e-2, atol=1e-3
            )


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_rows_and_columns_of_one_shot_are_the_joint_optimum(make_biased, tokens, family):
    model = make_biased(family)
    reference = make_biased(family)
    prune(
        model, "llm-surgeon", calibration=tokens, sparsity=0.2, shots=1, damping=0.1, **STRUCTURED
    )
    chosen = 0
    for name, (W, G, A) in factors(reference, tokens).items():
        linear = linears(model)[name]
        zero = weight_of(linear) == 0
        # all columns may go
        gone = zero.all(1) if linear.bias is None else zero.all(1) & (linear.bias == 0)
        rows = gone.nonzero().flatten()
        columns = zero.all(0).nonzero().flatten()
        chosen += len(rows) + len(columns)
        Gi = inverse(G, 0.1)
        Ai = inverse(A, 0.1)
        W = W - Gi[:, rows] @ torch.linalg.pinv(Gi[rows][:, rows], hermitian=True) @ W[rows]
        W = (
            W
            - W[:, columns]
            @ torch.linalg.pinv(Ai[columns][:, columns], hermitian=True)
            @ Ai[columns]
        )
        W[rows], W[:, columns] = 0, 0
        width = weight_of(linear).shape[1]
        torch.testing.assert_close(weight_of(linear).double(), W[:, :width], rtol=1e-2, atol=1e-3)
        if linear.bias is not None:
            torch.testing.assert_close(
                linear.bias.detach().double(), W[:, -1], rtol=1e-2, atol=1e-3
            )
            assert (linear.bias[rows] == 0).all()
    assert chosen > 20


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options", [{}, {"criterion": "k-obd"}, {"criterion": "l-obd"}, {"scope": "layer"}]
)
def test_entries_meet_the_count_exactly(make_model, tokens, family, options):
    model = make_model(family)
    sizes = [linear.weight.numel() for linear in linears(model).values()]
    report = prune(model, "llm-surgeon", calibration=tokens, sparsity=0.37, shots=3, **options)
    counts = [int((linear.weight == 0).sum()) for linear in linears(model).values()]
    assert report.sparsity == sum(counts) / sum(sizes)
    if options.get("scope") == "layer":
        assert counts == [math.floor(0.37 * size) for size in sizes]
    else:
        assert sum(counts) == math.floor(0.37 * sum(sizes))
        assert verify(model, Unstructured(0.37, "model")).holds
        assert len({count / size for count, size in zip(counts, sizes, strict=True)}) > 3


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "4:8"])
@pytest.mark.parametrize("family", ["llama", "opt"])
def test_n_of_m_is_exact_after_the_last_shot(make_model, tokens, family, pattern):
    model = make_model(family)
    report = prune(model, "llm-surgeon", calibration=tokens, pattern=pattern, shots=2)
    n, m = map(int, pattern.split(":"))
    assert report.sparsity == 1 - n / m
    for linear in linears(model).values():
        assert ((weight_of(linear) == 0).reshape(-1, m).sum(1) == m - n).all()


@pytest.mark.parametrize("scope", ["model", "layer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_and_columns_are_whole_and_within_the_budget(make_model, tokens, family, scope):
    model = make_model(family)
    report = prune(
        model, "llm-surgeon", calibration=tokens, sparsity=0.4, shots=2, scope=scope, **STRUCTURED
    )
    for name, linear in linears(model).items():
        zero = weight_of(linear) == 0
        assert torch.equal(zero, zero.all(1)[:, None] | zero.all(0)), name
        if scope == "layer":
            assert 0.4 - max(zero.shape) / zero.numel() < report.layers[name] < 0.4 + 1e-9
    assert 0.38 < report.sparsity <= 0.4
    assert report.pattern == f"0.4 per {scope}, rows and columns"


def test_zeros_of_earlier_shots_stay_and_count(make_model, tokens):
    for options in ({}, STRUCTURED):
        model = make_model("llama")
        prune(model, "llm-surgeon", calibration=tokens, sparsity=0.2, shots=1, **options)
        first = {name: weight == 0 for name, weight in weights(model).items()}
        prune(model, "llm-surgeon", calibration=tokens, sparsity=0.4, shots=1, **options)
        for name, weight in weights(model).items():
            assert (weight == 0)[first[name]].all()
        twice = make_model("llama")
        report = prune(twice, "llm-surgeon", calibration=tokens, sparsity=0.4, shots=2, **options)
        for name, weight in weights(twice).items():
            assert torch.equal(weight, weights(model)[name])
        assert report.sparsity == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("options", [STRUCTURED, {"shots": 2}])
def test_moments_taken_before_serve_many_runs(make_model, tokens, options):
    plain = make_model("llama")
    prune(plain, LLMSurgeon(sparsity=0.3, **{"shots": 1} | options), calibration=tokens)
    moments = backpropagate(make_model("llama"), tokens, SecondMoment)
    for _ in range(2):
        shared = make_model("llama")
        LLMSurgeon(sparsity=0.3, **{"shots": 1} | options).prune(shared, tokens, moments=moments)
        assert all(
            torch.equal(shared.state_dict()[name], tensor)
            for name, tensor in plain.state_dict().items()
        )


def test_dead_rows_and_columns_go_first_and_disturb_nothing(make_model, tokens):
    model = make_model("llama")
    mlp = model.model.layers[1].mlp
    # those inputs of down_proj are always zero, those of gate_proj have no gradient
    mlp.up_proj.weight.data[:20] = 0
    prune(model, "llm-surgeon", calibration=tokens, sparsity=0.1, shots=1, **STRUCTURED)
    assert all(weight.isfinite().all() for weight in weights(model).values())
    for weight, rows in (
        (mlp.up_proj.weight, True),
        (mlp.down_proj.weight.T, False),
        (mlp.gate_proj.weight, True),
    ):
        assert (weight[:20] == 0).all(), rows


def test_the_rest_of_the_model_and_its_gradients_are_left_alone(make_biased, tokens):
    model = make_biased("opt").requires_grad_(True)
    model.lm_head.weight.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    allowed = {n + end for n in linears(model) for end in (".weight", ".bias")}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prune(model, "llm-surgeon", calibration=tokens, sparsity=0.3, shots=1, **STRUCTURED)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    changed = {
        name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed <= allowed
    assert {name.rpartition(".")[2] for name in changed} == {"weight", "bias"}


@pytest.mark.parametrize("options", [{"sparsity": 0}, {"sparsity": 0, **STRUCTURED}])
def test_sparsity_zero_changes_nothing(make_model, tokens, options):
    model = make_model("llama")
    before = weights(model)
    prune(model, "llm-surgeon", calibration=tokens, shots=2, **options)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())


@pytest.mark.parametrize("criterion", ["k-obd", "l-obd"])
@pytest.mark.parametrize("options", [{}, STRUCTURED])
def test_the_baselines_update_nothing(make_model, tokens, criterion, options):
    model = make_model("llama")
    before = weights(model)
    prune(
        model,
        "llm-surgeon",
        calibration=tokens,
        sparsity=0.3,
        shots=2,
        criterion=criterion,
        **options,
    )
    for name, weight in weights(model).items():
        assert torch.equal(weight, before[name] * (weight != 0))


def test_without_gradients_entries_are_ranked_by_input_norms(make_model, tokens):
    model = make_model("llama")
    before = factors(make_model("llama"), tokens)
    prune(model, "llm-surgeon", calibration=tokens, sparsity=0.3, shots=1, criterion="l-obd")
    scores = {n: obs_score(W, 1 / A.diagonal().sqrt()) for n, (W, _, A) in before.items()}
    kept = torch.cat([scores[n][w != 0] for n, w in weights(model).items()])
    gone = torch.cat([scores[n][w == 0] for n, w in weights(model).items()])
    assert gone.max() <= kept.min() * (1 + 1e-4)


def test_narrow_weights_stay_narrow_and_fast_passes_change_little(make_model, tokens):
    model = make_model("llama").to(torch.bfloat16)
    report = prune(model, "llm-surgeon", calibration=tokens, pattern="2:4", shots=1)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    assert report.sparsity >= 0.5
    assert verify(model, "2:4").holds
    masks = []
    for precision in ("exact", "fast"):
        model = make_model("llama")
        prune(model, "llm-surgeon", calibration=tokens, sparsity=0.5, shots=1, precision=precision)
        masks.append(torch.cat([(weight == 0).flatten() for weight in weights(model).values()]))
    assert 0.97 < (masks[0] == masks[1]).float().mean() < 1


def test_a_saved_model_has_equal_logits_and_the_same_zeros(
    make_model, tokens, word_tokenizer, tmp_path
):
    model = make_model("llama")
    prune(model, "llm-surgeon", calibration=tokens, sparsity=0.3, shots=1, **STRUCTURED)
    save_model(model, word_tokenizer, tmp_path / "pruned")
    again, _ = load_model(str(tmp_path / "pruned"), device="cpu")
    assert loss(again, tokens) == loss(model, tokens)
    assert verify(again, 0.0).sparsity == model.prunebook_reports[0].sparsity


def test_activations_that_are_not_finite_are_named(make_model, tokens):
    model = make_model("llama")
    model.model.embed_tokens.weight.data[tokens[6, 3]] = float("nan")
    before = weights(model)
    with pytest.raises(
        UserError, match=r"activations of model\.layers\.0\.self_attn\..* hold NaN or infinity"
    ):
        prune(model, "llm-surgeon", calibration=tokens, sparsity=0.5)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())
