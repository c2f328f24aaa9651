"""What the cache tests share: plain greedy generation, padded prompts, the choice of kernels."""

import functools

import pytest


@pytest.fixture
def generate():
    """`generate(model, ids, cache, new=12, **options)`: greedy tokens `[n, new]` after the
    prompt."""

    def run(model, ids, cache, new=12, **options):
        fixed = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "max_new_tokens": new}
        options.setdefault("attention_mask", ids.new_ones(ids.shape))
        return model.generate(ids, past_key_values=cache, **fixed | options)[:, ids.shape[1] :]

    return run


@pytest.fixture
def padded():
    """Two prompts, int64 `[2, 20]` and their mask; the second has 13 tokens, padded on the left."""
    import torch

    ids = torch.randint(2, 100, (2, 20), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[1, :7] = ids[1, :7] = 0
    return ids, mask


@pytest.fixture
def with_kernels(monkeypatch):
    """`with_kernels(True or False)`: whether the dispatchers choose kernels from now on. The list
    that it gives back gets the name of each kernel as it is launched."""
    from prunebook.kernels.attention import compaction, decode, mass

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
