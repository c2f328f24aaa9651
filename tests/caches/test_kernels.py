"""Caches by the kernels, in Triton's interpreter or on a GPU: the tokens that the torch path keeps,
to the last one."""

import functools

import pytest
import torch

from prunebook.caches import H2OCache, KeyformerCache, WindowCache
from prunebook.kernels.attention import compaction, decode, mass
from prunebook.kernels.launch import triton

pytestmark = pytest.mark.skipif(triton is None, reason="Triton is not installed on this platform")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def with_kernels(monkeypatch):
    """`with_kernels(True or False)`: whether the dispatchers choose kernels from now on. The list
    that it gives back gets the name of each kernel as it is launched."""
    launched = []

    def watch(module, name):
        launch = getattr(module, name)

        @functools.wraps(launch)
        def watched(*args):
            launched.append(name)
            return launch(*args)

        monkeypatch.setattr(module, name, watched)

    def choose(kernels):
        for module in (decode, mass, compaction):
            monkeypatch.setattr(module, "runs_natively", lambda *_, **__: kernels)
        launched.clear()
        return launched

    watch(mass, "launch_attention_mass")
    watch(compaction, "launch_take_kept")
    watch(decode, "launch_decode")
    return choose


def drive(cache, batch, kv_heads, group, n, new, padded, seed):
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


@pytest.mark.parametrize(
    ("batch", "kv_heads", "group", "n", "padded"),
    [(1, 1, 1, 37, False), (2, 2, 3, 65, True), (2, 1, 3, 65, True), (2, 3, 1, 40, False)],
)
@pytest.mark.parametrize(
    "make", [H2OCache, functools.partial(KeyformerCache, new_tokens=3)], ids=["h2o", "keyformer"]
)
def test_the_same_tokens_are_kept(with_kernels, make, batch, kv_heads, group, n, padded):
    """Keyformer reaches its last temperature on the way."""
    case = functools.partial(drive, make(0.4), batch, kv_heads, group, n, 6, padded, seed=1)
    with_kernels(False)
    expected, wanted, reference = case()
    launched = with_kernels(True)
    sets, outputs, layer = case()
    assert launched == ["launch_attention_mass", "launch_take_kept"] + ["launch_decode"] * 6
    assert sets == expected
    assert torch.equal(layer.positions, reference.positions)
    torch.testing.assert_close(layer.scores, reference.scores, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outputs, wanted, rtol=1e-5, atol=1e-6)
    assert layer.keys.shape == reference.keys.shape


@pytest.mark.parametrize(
    "make", [H2OCache, WindowCache, functools.partial(KeyformerCache, new_tokens=3)]
)
def test_in_a_model(with_kernels, make_model, generate, padded, make):
    """A generation with queries and keys as a model makes them: the same tokens written and kept. A
    window has no mass to read from the prompt."""
    model, (ids, mask) = make_model("llama").to(DEVICE), (x.to(DEVICE) for x in padded)
    written = []
    kept = []
    for kernels in (False, True):
        launched = with_kernels(kernels)
        cache = make(0.4)
        written.append(generate(model, ids, cache, new=3, attention_mask=mask))
        kept.append([layer.positions for layer in cache.layers])
        layers = kernels * len(cache.layers)
        assert launched.count("launch_take_kept") == layers
        assert launched.count("launch_attention_mass") == layers * (make is not WindowCache)
        assert launched.count("launch_decode") == 2 * layers
    assert torch.equal(*written)
    assert all(map(torch.equal, *kept))
