"""Attention mass of the keys of a prompt: by hand, against the square matrix in float64, by the
kernels interpreted."""

import json
import re

import pytest
import torch
from tests.kernels.compiling import DEVICE, compile_apart, needs_triton

from prunebook.errors import UserError
from prunebook.kernels.attention import mass as module
from prunebook.kernels.attention import mass_kernels
from prunebook.kernels.attention.mass import attention_mass, attention_mass_reference
from prunebook.kernels.attention.mass_kernels import launch_attention_mass
from prunebook.kernels.attention.noise import Perturbation, gumbel, stream_of

pytestmark = [
    # of weights that are then masked
    pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning"),
    pytest.mark.usefixtures("nan_memory"),
]
IMPLEMENTATIONS = [
    attention_mass_reference,
    pytest.param(launch_attention_mass, marks=needs_triton),
]


def positions_of(valid):
    return (valid.cumsum(1) - 1).masked_fill(~valid, -1)


def draw(heads, kv_heads, n, width, dtype=torch.float32, valid=None, spread=1.0):
    """Queries and keys as attention has them, views with the head dimension moved, and their
    positions."""
    generator = torch.Generator().manual_seed(n + width)
    rows = 1 if valid is None else len(valid)
    query, keys = (
        torch.randn(rows, n, h, width, generator=generator) * spread for h in (heads, kv_heads)
    )
    valid = torch.ones(1, n, dtype=torch.bool) if valid is None else valid
    return *(x.to(dtype).to(DEVICE).transpose(1, 2) for x in (query, keys)), positions_of(valid).to(
        DEVICE
    )


def square(query, keys, positions, scaling, window=None, perturbation=None):
    """The whole matrix in float64, with -inf where a query does not see a key; noise head by
    head."""
    keys = keys.repeat_interleave(query.shape[1] // keys.shape[1], 1)
    at = positions[:, None, :, None]
    before = positions[:, None, None, :]
    seen = (before >= 0) & (before <= at)
    if window is not None:
        seen &= at - before < window
    logits = query.double() @ keys.double().mT * scaling
    if perturbation is not None:
        if perturbation.stream is not None:
            for head in range(logits.shape[1]):
                address = torch.tensor(head, device=DEVICE), at[:, 0], before[:, 0]
                logits[:, head] += gumbel(perturbation.stream, *address)
        logits /= perturbation.temperature[:, None, None, None]
    return logits.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0)


def expected(query, keys, *others):
    return square(query, keys, *others).sum(2).unflatten(1, (keys.shape[1], -1)).sum(2)


@pytest.mark.parametrize("mass", IMPLEMENTATIONS)
def test_by_hand(mass):
    """Flat attention gives the sums of 1/t; two query heads share a KV head; a window of two halves
    all but the first and the last."""
    query = torch.zeros(1, 4, 5, 8)
    keys = torch.zeros(1, 2, 5, 8)
    positions = torch.arange(5)[None]
    query, keys, positions = (x.to(DEVICE) for x in (query, keys, positions))
    harmonic = [sum(2 / t for t in range(j, 6)) for j in range(1, 6)]
    for of_head in mass(query, keys, positions, 1.0)[0]:
        assert of_head.tolist() == pytest.approx(harmonic, rel=1e-6)
    assert mass(query, keys, positions, 1.0, 2)[0, 0].tolist() == pytest.approx(
        [3, 2, 2, 2, 1], rel=1e-6
    )


LEFT = torch.ones(3, 65, dtype=torch.bool)
INSIDE = torch.ones(2, 70, dtype=torch.bool)
LEFT[1, :20] = LEFT[2, :64] = False
INSIDE[0, 3:30] = INSIDE[0, 66:] = INSIDE[1, ::2] = False


@pytest.mark.parametrize("mass", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "n", "width", "valid", "window"),
    [
        (1, 1, 1, 8, None, None),
        (3, 1, 37, 16, None, None),
        (2, 2, 65, 64, LEFT, None),
        (2, 1, 130, 128, None, None),
        (6, 2, 40, 16, LEFT[:2, :40], None),
        (3, 1, 70, 24, INSIDE, None),
        (2, 2, 65, 20, LEFT, 7),
        (3, 1, 70, 32, INSIDE, 9),
        (1, 1, 130, 16, None, 40),
        (1, 1, 37, 16, None, 1),
    ],
)
def test_close_to_the_square_matrix(mass, heads, kv_heads, n, width, valid, window):
    given = *draw(heads, kv_heads, n, width, valid=valid, spread=2.0), width**-0.5, window
    found = mass(*given)
    wanted = expected(*given)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    real = given[2] >= 0
    assert (found.masked_select(~real[:, None]) == 0).all()
    total = real.sum(1, keepdim=True).double() * (heads // kv_heads)
    torch.testing.assert_close(found.double().sum(2), total.expand(-1, kv_heads), rtol=1e-5, atol=0)


def perturbed(positions, noise, *temperatures):
    return Perturbation(
        torch.tensor(temperatures, device=DEVICE), positions, stream_of(3, 1) if noise else None
    )


@pytest.mark.parametrize("mass", IMPLEMENTATIONS)
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "n", "width", "valid", "window", "temperatures"),
    [
        (1, 1, 1, 8, None, None, (1.0,)),
        (3, 1, 37, 16, None, None, (1.5,)),
        (4, 2, 65, 16, LEFT, None, (1.0, 2.0, 0.5)),
        (2, 1, 70, 24, INSIDE, 9, (0.7,)),
    ],
)
def test_perturbed_logits(mass, noise, heads, kv_heads, n, width, valid, window, temperatures):
    """Noise is addressed by positions, so that padding does not shift it; rows have temperatures of
    their own."""
    query, keys, positions = draw(heads, kv_heads, n, width, valid=valid, spread=2.0)
    given = query, keys, positions, width**-0.5, window, perturbed(positions, noise, *temperatures)
    found = mass(*given)
    torch.testing.assert_close(found.double(), expected(*given), rtol=1e-5, atol=1e-6)
    assert (found.masked_select((positions < 0)[:, None]) == 0).all()
    if n > 1 and (noise or temperatures != (1.0,)):
        assert not torch.allclose(found, mass(*given[:-1]), rtol=1e-2)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n", "width", "valid"), [(65, 64, LEFT), (150, 128, None)])
def test_half_precision(dtype, n, width, valid):
    """Products are exact and sums in float32: what is lost is lost in the inputs."""
    given = *draw(3, 1, n, width, dtype, valid), width**-0.5
    found = launch_attention_mass(*given)
    wanted = expected(*given)
    torch.testing.assert_close(found.double(), wanted, rtol=2e-3, atol=1e-6)
    total = 3 * (given[2] >= 0).sum(1, keepdim=True)
    torch.testing.assert_close(found.double().sum(2), total.double(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("mass", IMPLEMENTATIONS)
def test_large_logits(mass):
    """Of hundreds, of both signs: every query looks at one key, and nothing overflows, masked keys
    least of all."""
    query, keys, positions = draw(1, 1, 40, 16, spread=20.0)
    keys[0, 0, -1] = 50 * query[0, 0, 3]  # no query before the last sees it
    given = query, keys, positions, 1.0
    torch.testing.assert_close(mass(*given).double(), expected(*given), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("elements", [1, 500, 1 << 20])
@pytest.mark.parametrize("noise", [False, True])
def test_the_reference_holds_a_block_of_logits(monkeypatch, elements, noise):
    """One query of each head at least; together no more than the square matrix."""
    blocks = []

    def watched(*given):
        blocks.append(module_logits(*given))
        return blocks[-1]

    module_logits = module.grouped_logits
    monkeypatch.setitem(module._ELEMENTS, DEVICE, elements)
    monkeypatch.setattr(module, "grouped_logits", watched)
    query, keys, positions = draw(6, 2, 33, 8, valid=LEFT[:2, :33])
    given = query, keys, positions, 0.7, None, perturbed(positions, noise, 1.5, 0.7)
    torch.testing.assert_close(
        attention_mass_reference(*given).double(), expected(*given), rtol=1e-5, atol=1e-6
    )
    sizes = [block.numel() for block in blocks]
    assert max(sizes) <= max(elements, 2 * 6 * 33)
    assert sum(sizes) <= 2 * 6 * 33 * 33


@needs_triton
def test_many_tiles_equal_one(monkeypatch):
    given = *draw(2, 1, 37, 16, valid=LEFT[:2, :37]), 0.25
    whole = launch_attention_mass(*given)
    monkeypatch.setattr(mass_kernels, "_tiles", lambda query, form: (16, 16))
    for window in (None, 20):
        for change in (None, perturbed(given[2], True, 1.5)):
            found = launch_attention_mass(*given, window, change).double()
            torch.testing.assert_close(
                found, expected(*given, window, change), rtol=1e-5, atol=1e-6
            )
    torch.testing.assert_close(launch_attention_mass(*given), whole)


@needs_triton
def test_strides_do_not_matter_and_inputs_stay():
    """Views with steps, views between columns of NaN, positions that all rows share."""
    query, keys, positions = draw(2, 1, 37, 8, valid=LEFT[:1, :37].expand(2, 37))
    change = perturbed(positions[:1].clone(), True, 1.5)
    given = positions, 0.5, None, change
    expected = launch_attention_mass(query.contiguous(), keys.contiguous(), *given)
    steps = [x.repeat_interleave(3, 3)[..., ::3] for x in (query, keys)]
    between = [
        torch.nn.functional.pad(x, (4, 20), value=torch.nan)[..., 4:12] for x in (query, keys)
    ]
    before = [x.clone() for x in (*steps, *between, positions)]
    for views in (steps, between):
        assert torch.equal(
            launch_attention_mass(*views, positions[:1].clone(), *given[1:]), expected
        )
    torch.testing.assert_close(expected, attention_mass_reference(query, keys, *given))
    places = positions.T.contiguous().T
    assert torch.equal(launch_attention_mass(query, keys, places, *given[1:]), expected)
    assert all(map(torch.equal, (*steps, *between, positions), before))


def test_float64_and_an_empty_prompt():
    query, keys, positions = draw(2, 1, 9, 8, torch.float64)
    torch.testing.assert_close(
        attention_mass(query, keys, positions, 0.3), expected(query, keys, positions, 0.3)
    )
    assert attention_mass(query[:, :, :0], keys[:, :, :0], positions[:, :0], 0.3).shape == (1, 1, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"query": torch.ones(2, 4, 5)},
            "query is torch.float32 [2, 4, 5]; use floats [batch, heads, n, width]",
        ),
        ({"query": torch.ones(2, 4, 5, 8).long()}, "query is torch.int64 [2, 4, 5, 8]; use floats"),
        (
            {"keys": torch.ones(2, 3, 5, 8)},
            "keys are torch.float32 [2, 3, 5, 8]; query [2, 4, 5, 8] needs torch.fl",
        ),
        ({"keys": torch.ones(2, 2, 6, 8)}, "needs torch.float32 [2, a divisor of 4, 5, 8]"),
        ({"keys": torch.ones(2, 2, 5, 8).half()}, "keys are torch.float16 [2, 2, 5, 8]"),
        (
            {"positions": torch.zeros(3, 5).long()},
            "positions are torch.int64 [3, 5]; query [2, 4, 5, 8] needs",
        ),
        ({"positions": torch.zeros(2, 5)}, "positions are torch.float32 [2, 5]"),
        ({"window": 0}, "window 0 is not allowed; use a number of keys >= 1, or None"),
        (
            {"perturbation": Perturbation(torch.ones(1), torch.ones(1, 4).long())},
            "queries of the perturbation: torch.int64 [1, 4] on cpu; the logits need "
            "torch.int64 [1, 5] or [2, 5]",
        ),
        (
            {"perturbation": Perturbation(torch.ones(2), torch.ones(1, 5))},
            "queries of the perturbation: torch.float32",
        ),
        (
            {"perturbation": Perturbation(torch.ones(3), torch.ones(1, 5).long())},
            "temperature of the perturbation",
        ),
        (
            {"perturbation": Perturbation(torch.ones(1).half(), torch.ones(1, 5).long())},
            "torch.float16 [1] on cpu",
        ),
    ],
)
def test_bad_arguments(changes, message):
    given = {
        "query": torch.ones(2, 4, 5, 8),
        "keys": torch.ones(2, 2, 5, 8),
        "positions": torch.arange(5)[None],
    }
    with pytest.raises(UserError, match=re.escape(message)):
        attention_mass(**{**given, "scaling": 1.0, **changes})


@needs_triton
def test_compiled_for_hopper():
    """Tensor cores of the generation, no spills, loads of 16 bytes, and tiles that fit the shared
    memory."""
    printed = compile_apart(
        """
import json, torch
from prunebook.kernels.attention.mass_kernels import launch_attention_mass
from prunebook.kernels.attention.noise import Perturbation, stream_of
with compiled_for() as found:
    at = torch.arange(512)[None]
    noise = Perturbation(torch.ones(1), at, stream_of(0, 3))
    tempered = Perturbation(torch.ones(1), at, None)
    for width, dtype, options in (
        (128, torch.bfloat16, ((None,), (100,), (None, noise), (None, tempered))),
        (256, torch.bfloat16, ((None,),)),
        (128, torch.float32, ((None,), (100,), (None, noise))),
    ):
        query = torch.ones(1, 4, 512, width, dtype=dtype)
        keys = torch.ones(1, 2, 512, width, dtype=dtype)
        for option in options:
            launch_attention_mass(query, keys, at, 0.1, *option)
wide = lambda ptx: "ld.global.v4" in ptx or "cp.async.cg.shared.global" in ptx
print(json.dumps([
    (one.stack, "wgmma" in one.ptx, wide(one.ptx), one.shared <= 227 * 1024) for one in found
]))
"""
    )
    assert json.loads(printed.splitlines()[-1]) == [[0, True, True, True]] * 16


@pytest.mark.parametrize("mass", IMPLEMENTATIONS)
@pytest.mark.parametrize("window", [None, 7])
def test_what_padding_holds_counts_nothing(mass, window):
    valid = torch.ones(2, 40, dtype=torch.bool)
    valid[0, :5] = valid[1, 17] = False
    query, keys, positions = draw(4, 2, 40, 16, valid=valid)
    clean = mass(query, keys, positions, 0.25, window)
    for value in (torch.nan, torch.inf):
        spoiled = [x.masked_fill(~valid.to(DEVICE)[:, None, :, None], value) for x in (query, keys)]
        assert torch.equal(mass(*spoiled, positions, 0.25, window), clean)
