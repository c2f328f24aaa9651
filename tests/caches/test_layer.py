"""A layer's kept tokens, scores and outputs against the papers' rules, computed directly from whole
matrices; and by the kernels, in Triton's interpreter or on a GPU."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.compiling import DEVICE, needs_triton

from prunebook.caches import H2OCache, KeyformerCache, RandomCache, WindowCache
from prunebook.caches.policy import CacheBudget, EvictionPolicy
from prunebook.errors import UserError
from prunebook.kernels.attention.noise import gumbel, stream_of

SCALING = 0.7


def make_layer(cache):
    return cache.layer_class_to_replicate()


def case(seed, batch, kv_heads, group, n, new):
    """Float64 queries, keys and values `[batch, heads, n + new, 4]`."""
    generator = torch.Generator().manual_seed(seed)
    heads = (kv_heads * group, kv_heads, kv_heads)
    return [
        torch.randn(batch, h, n + new, 4, generator=generator, dtype=torch.float64) * 1.5
        for h in heads
    ]


def drive(layer, query, keys, values, valid, n):
    """Kept positions after the prompt and after each token, by row and KV head; and the outputs."""

    def kept():
        return [[set(p[p >= 0].tolist()) for p in row] for row in layer.positions]

    layer.read_prompt(query[:, :, :n], keys[:, :, :n], values[:, :, :n], valid[:, :n], SCALING, 2)
    sets = [kept()]
    outputs = []
    for t in range(n, query.shape[2]):
        now = (slice(None), slice(None), slice(t, t + 1))
        outputs.append(
            layer.decode(query[now], keys[now], values[now], valid[:, t : t + 1], SCALING)
        )
        sets.append(kept())
    return sets, torch.cat(outputs, 1) if outputs else None


def direct(query, keys, values, n, total, recent, gain, average=False):
    """The rule for one row and KV head, nothing dropped, evicted tokens masked: sets, outputs and
    scores.

    Args:
        query: `[group, T, d]`.
        keys, values: `[T, d]`.
        gain: `(logits [group, tokens], query, tokens)` to their gains.
    """
    length = len(keys)
    logits = query @ keys.T * SCALING
    scores = torch.zeros(length, dtype=torch.float64)

    def compared(j, seen):
        return scores[j].item() / (seen - j) if average else scores[j].item(), j

    for t in range(n):
        scores[: t + 1] += gain(logits[:, t, : t + 1], t, list(range(t + 1))).sum(0)
    others = sorted(range(max(n - recent, 0)), key=lambda j: compared(j, n))
    kept = sorted(set(range(n)) - set(others[: max(n - total, 0)]))
    sets = [set(kept)]
    outputs = []
    for t in range(n, length):
        kept.append(t)
        masked = torch.full_like(logits[:, t], -torch.inf)
        masked[:, kept] = logits[:, t, kept]
        outputs.append(masked.softmax(-1) @ values)
        scores[kept] += gain(logits[:, t, kept], t, kept).sum(0)
        if len(kept) > total:
            kept.remove(min((j for j in kept if j <= t - recent), key=lambda j: compared(j, t + 1)))
        sets.append(set(kept))
    return sets, outputs, scores


def h2o_gain(head):
    return lambda logits, t, tokens: logits.softmax(-1)


def keyformer_gain(n, tau, steps, seed):
    def of_head(head):
        def gain(logits, t, tokens):
            heads = torch.arange(head * len(logits), (head + 1) * len(logits))[:, None]
            noise = gumbel(stream_of(seed, 2), heads, torch.tensor(t), torch.tensor(tokens))
            temperature = tau[0] + min(max(t - n + 1, 0) / steps, 1) * (tau[1] - tau[0])
            return ((logits + noise) / temperature).softmax(-1)

        return gain

    return of_head


@st.composite
def layouts(draw):
    """Sizes, and which tokens of each row are padding, anywhere but never all of a prompt."""
    batch = draw(st.integers(1, 3))
    n = draw(st.integers(2, 14))
    new = draw(st.integers(0, 10))
    valid = torch.ones(batch, n + new, dtype=torch.bool)
    for row in range(batch):
        kind = draw(st.sampled_from(["whole", "left", "anywhere"]))
        if kind == "left":
            valid[row, : draw(st.integers(0, n - 1))] = False
        if kind == "anywhere":
            valid[row] = torch.tensor(
                draw(st.lists(st.booleans(), min_size=n + new, max_size=n + new))
            )
            valid[row, draw(st.integers(0, n - 1))] = True
    sizes = (
        draw(st.integers(0, 10**6)),
        batch,
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        n,
        new,
    )
    return sizes, valid, draw(st.integers(1, 12)), draw(st.floats(0, 1))


@settings(max_examples=100, deadline=None)
@given(layout=layouts(), rule=st.sampled_from(["sum", "average", "keyformer"]))
def test_kept_tokens_and_outputs_are_those_of_the_rule(layout, rule):
    sizes, valid, budget, recent = layout
    _, batch, kv_heads, group, n, _ = sizes
    query, keys, values = case(*sizes)
    keyformer = rule == "keyformer"
    average = rule == "average"
    cache = H2OCache(budget, recent, average=average)
    if keyformer:
        cache = KeyformerCache(budget, recent, tau=(0.5, 2.0), new_tokens=4, seed=11)
    total, window = cache.layer_class_to_replicate().policy.budget.tokens(n)
    layer = make_layer(cache)
    sets, outputs = drive(layer, query, keys, values, valid, n)
    for row in range(batch):
        real = valid[row]
        length = int(valid[row, :n].sum())
        gain = keyformer_gain(length, (0.5, 2.0), 4, 11) if keyformer else h2o_gain
        for head in range(kv_heads):
            of_group = slice(head * group, (head + 1) * group)
            expected, wanted, scores = direct(
                query[row, of_group, real],
                keys[row, head, real],
                values[row, head, real],
                length,
                total,
                window,
                gain(head),
                average,
            )
            seen = [0, *real[n:].cumsum(0).tolist()]
            assert [s[row][head] for s in sets] == [expected[count] for count in seen]
            held = layer.positions[row, head] >= 0
            positions = layer.positions[row, head, held]
            torch.testing.assert_close(
                layer.scores[row, head, held], scores[positions], rtol=1e-9, atol=1e-9
            )
            if wanted:
                found = outputs[row, real[n:]].unflatten(1, (kv_heads, group))[:, head]
                torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-9, atol=1e-9)


def test_fractions_are_of_each_row_s_own_prompt():
    query, keys, values = case(0, 2, 2, 1, 20, 6)
    valid = torch.ones(2, 26, dtype=torch.bool)
    valid[1, :10] = False
    sets, _ = drive(make_layer(H2OCache(0.4)), query, keys, values, valid, 20)
    assert [{len(of_head) for of_head in row} for row in sets[0]] == [{8}, {4}]
    assert [{len(of_head) for of_head in row} for row in sets[-1]] == [{8}, {4}]


def test_equal_logits_keep_the_first_and_the_last():
    query, keys, values = case(0, 1, 2, 2, 12, 8)
    sets, _ = drive(
        make_layer(H2OCache(6, recent=2)), query * 0, keys, values, torch.ones(1, 20).bool(), 12
    )
    for t, kept in enumerate(sets, 12):
        assert kept[0] == [{0, 1, 2, 3, t - 2, t - 1}] * 2


def test_of_equal_scores_the_earliest_leaves():
    query, keys, values = case(0, 1, 1, 1, 6, 1)
    layer = make_layer(H2OCache(4, recent=1))
    layer.policy.mass = False  # all scores stay 0
    sets, _ = drive(layer, query, keys, values, torch.ones(1, 7).bool(), 6)
    assert [s[0][0] for s in sets] == [{2, 3, 4, 5}, {3, 4, 5, 6}]


def test_a_window_is_the_newest_tokens():
    query, keys, values = case(1, 2, 2, 2, 10, 5)
    sets, _ = drive(make_layer(WindowCache(4)), query, keys, values, torch.ones(2, 15).bool(), 10)
    assert sets == [[[set(range(t - 4, t))] * 2] * 2 for t in range(10, 16)]


def test_random_caches_hold_a_uniform_sample_of_the_past():
    heads = 4000
    n = 10
    new = 6
    query, keys, values = (torch.zeros(1, heads, n + new, 1) for _ in range(3))
    layer = make_layer(RandomCache(6, recent=2, seed=5))
    sets, _ = drive(layer, query, keys, values, torch.ones(1, n + new).bool(), n)
    for t, kept in ((n, sets[0][0]), (n + new, sets[-1][0])):
        shares = torch.tensor([sum(j in of_head for of_head in kept) / heads for j in range(t)])
        assert (shares[-2:] == 1).all()
        # 5 sd
        torch.testing.assert_close(
            shares[:-2], torch.full((t - 2,), 4 / (t - 2)), atol=0.04, rtol=0
        )


def test_memory_is_flat_in_decoding():
    query, keys, values = case(4, 2, 2, 2, 16, 40)
    layer = make_layer(H2OCache(0.5))
    valid = torch.ones(2, 56).bool()

    def size():
        return sum(
            x.untyped_storage().nbytes()
            for x in vars(layer).values()
            if isinstance(x, torch.Tensor)
        )

    drive(layer, query[:, :, :17], keys[:, :, :17], values[:, :, :17], valid[:, :17], 16)
    slots = layer.keys.data_ptr()
    before = size()
    assert layer.keys.shape[2] == 9  # the budget and one
    layer.decode(query[:, :, 17:], keys[:, :, 17:], values[:, :, 17:], valid[:, 17:], SCALING)
    assert (layer.keys.data_ptr(), size()) == (slots, before)
    assert layer.get_seq_length() == 56


def test_slots_grow_up_to_a_budget_in_tokens():
    query, keys, values = case(5, 1, 1, 1, 5, 100)
    layer = make_layer(H2OCache(80))
    sets, _ = drive(layer, query, keys, values, torch.ones(1, 105).bool(), 5)
    assert [len(s[0][0]) for s in sets] == [min(5 + t, 80) for t in range(101)]
    assert layer.keys.shape[2] == 81


def test_random_caches_differ_by_seed_and_by_layer():
    query, keys, values = case(9, 1, 2, 1, 40, 0)
    kept = {}
    for seed, index in ((0, 0), (0, 1), (1, 0), (0, 0)):
        layer = make_layer(RandomCache(20, recent=2, seed=seed))
        layer.read_prompt(query, keys, values, torch.ones(1, 40).bool(), SCALING, index)
        found = tuple(layer.positions.flatten().tolist())
        assert kept.setdefault((seed, index), found) == found
    assert len(set(kept.values())) == 3


def test_a_perturbation_of_nothing_is_refused():
    with pytest.raises(UserError, match="perturb changes the attention mass; give mass=True"):
        EvictionPolicy(CacheBudget(4, 1), perturb=lambda layer, queries, steps: None)


def test_a_row_of_padding_alone():
    query, keys, values = case(8, 2, 1, 1, 4, 0)
    valid = torch.tensor([[True] * 4, [False] * 4])
    with pytest.raises(UserError, match="row 1 of the batch is padding alone"):
        make_layer(H2OCache(2)).read_prompt(query, keys, values, valid, SCALING, 0)


def drive_float32(cache, batch, kv_heads, group, n, new, padded, seed):
    """The kept positions of each row and KV head after the prompt and after each token, outputs,
    and final scores."""
    generator = torch.Generator().manual_seed(seed)
    heads = (kv_heads * group, kv_heads, kv_heads)
    drawn = [
        torch.randn(batch, n + new, h, 16, generator=generator).transpose(1, 2).to(DEVICE) * 1.5
        for h in heads
    ]
    valid = torch.ones(batch, n + new, dtype=torch.bool, device=DEVICE)
    if padded:
        valid[1, : n // 3] = valid[1, n // 2] = False
    layer = cache.layer_class_to_replicate()
    sets = []
    outputs = []
    layer.read_prompt(*(x[:, :, :n] for x in drawn), valid[:, :n], 0.25, 1)
    for t in range(n, n + new + 1):
        sets.append([[sorted(p[p >= 0].tolist()) for p in row] for row in layer.positions])
        if t < n + new:
            now = [x[:, :, t : t + 1] for x in drawn]
            outputs.append(layer.decode(*now, valid[:, t : t + 1], 0.25))
    return sets, torch.cat(outputs, 1), layer


@needs_triton
@pytest.mark.parametrize(
    ("rule", "batch", "kv_heads", "group", "n", "padded"),
    [
        ("h2o", 1, 1, 1, 37, False),
        ("h2o", 2, 1, 3, 65, True),
        ("h2o", 2, 3, 1, 40, False),
        ("keyformer", 1, 1, 1, 37, False),
        ("keyformer", 2, 2, 2, 40, True),
    ],
)
def test_the_same_tokens_are_kept(with_kernels, rule, batch, kv_heads, group, n, padded):
    """Keyformer reaches its last temperature on the way."""
    cache = H2OCache(0.4)
    if rule == "keyformer":
        cache = KeyformerCache(0.4, new_tokens=3)
    case = functools.partial(drive_float32, cache, batch, kv_heads, group, n, 4, padded, seed=1)
    with_kernels(False)
    expected, wanted, reference = case()
    launched = with_kernels(True)
    sets, outputs, layer = case()
    assert launched == ["launch_attention_mass", "launch_take_kept"] + ["launch_decode"] * 4
    assert sets == expected
    assert torch.equal(layer.positions, reference.positions)
    torch.testing.assert_close(layer.scores, reference.scores, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outputs, wanted, rtol=1e-5, atol=1e-6)
    assert layer.keys.shape == reference.keys.shape
