"""Decode attention with the mass of each slot: by hand, against float64, by the kernels interpreted
and compiled."""

import json
import re

import pytest
import torch
from tests.kernels.compiling import DEVICE, compile_apart, needs_triton

from prunebook.errors import UserError
from prunebook.kernels.attention import decode_kernels
from prunebook.kernels.attention.decode import decode_reference, decode_with_mass
from prunebook.kernels.attention.decode_kernels import launch_decode
from prunebook.kernels.attention.noise import Perturbation, gumbel, stream_of

pytestmark = pytest.mark.usefixtures("nan_memory")
IMPLEMENTATIONS = [decode_reference, pytest.param(launch_decode, marks=needs_triton)]


def draw(batch, kv_heads, group, slots, width, dtype=torch.float32, v_width=None, spread=1.0):
    """A query, keys that are NaN in the empty slots, values that are large there, and the positions
    in the slots, in no
    order: two of three are held, never none."""
    generator = torch.Generator().manual_seed(slots + width)
    query = torch.randn(batch, kv_heads * group, width, generator=generator) * spread
    keys = torch.randn(batch, kv_heads, slots, width, generator=generator)
    values = torch.randn(batch, kv_heads, slots, v_width or width, generator=generator)
    valid = torch.rand(batch, kv_heads, slots, generator=generator) < 2 / 3
    valid[..., slots // 2] = True
    keys = keys.masked_fill(~valid[..., None], torch.nan)
    values = values.masked_fill(~valid[..., None], 1e4)
    positions = (
        torch.rand(batch, kv_heads, slots, generator=generator).argsort(-1).masked_fill(~valid, -1)
    )
    return *(x.to(dtype).to(DEVICE) for x in (query, keys, values)), positions.to(DEVICE)


def expected(query, keys, values, positions, scaling, perturbation=None):
    """Output and mass in float64, head by head."""
    group = query.shape[1] // keys.shape[1]
    valid = positions >= 0
    keys, values = (
        x.double().masked_fill(~valid[..., None], 0).repeat_interleave(group, 1)
        for x in (keys, values)
    )
    logits = (query.double()[:, :, None] @ keys.mT)[:, :, 0] * scaling
    empty = ~valid.repeat_interleave(group, 1)
    weights = scored = logits.masked_fill(empty, -torch.inf).softmax(-1)
    if perturbation is not None:
        if perturbation.stream is not None:
            for head in range(query.shape[1]):
                address = (
                    torch.tensor(head, device=DEVICE),
                    perturbation.queries,
                    positions[:, head // group],
                )
                logits[:, head] += gumbel(perturbation.stream, *address)
        scored = (
            (logits / perturbation.temperature[:, None, None])
            .masked_fill(empty, -torch.inf)
            .softmax(-1)
        )
    return (weights[:, :, None] @ values)[:, :, 0], scored.unflatten(1, (-1, group)).sum(2)


@pytest.mark.parametrize("decode", IMPLEMENTATIONS)
def test_by_hand(decode):
    """Logits 0, ln 2 and 0 of three slots, an empty one between them, and a second head that looks
    at all equally."""
    query = torch.zeros(1, 2, 8)
    keys = torch.zeros(1, 1, 4, 8)
    values = torch.zeros(1, 1, 4, 8)
    query[0, 0, 0], keys[0, 0, 2, 0] = 1, torch.tensor(2.0).log()
    values[0, 0, :, 1] = torch.tensor([4.0, 100.0, 8.0, 0.0])
    positions = torch.tensor([[[7, -1, 0, 3]]])
    output, mass = decode(*(x.to(DEVICE) for x in (query, keys, values, positions)), 1.0)
    assert output[0, :, 1].tolist() == pytest.approx([5, 4])
    assert mass[0, 0].tolist() == pytest.approx([1 / 4 + 1 / 3, 0, 1 / 2 + 1 / 3, 1 / 4 + 1 / 3])


@pytest.mark.parametrize("decode", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("batch", "kv_heads", "group", "slots", "width", "v_width"),
    [
        (1, 1, 1, 1, 8, None),
        (2, 2, 3, 65, 20, None),
        (1, 1, 4, 300, 64, None),
        (1, 2, 4, 97, 128, None),
        (1, 3, 1, 33, 16, None),
        (1, 1, 17, 40, 24, 40),
    ],
)
def test_close_to_float64(decode, batch, kv_heads, group, slots, width, v_width):
    given = *draw(batch, kv_heads, group, slots, width, v_width=v_width, spread=2.0), width**-0.5
    (output, mass), (wanted, wanted_mass) = decode(*given), expected(*given)
    assert output.dtype == mass.dtype == torch.float32
    torch.testing.assert_close(output.double(), wanted, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(mass.double(), wanted_mass, rtol=1e-5, atol=1e-9)
    assert (mass[given[3] < 0] == 0).all()
    torch.testing.assert_close(mass.sum(2), torch.full_like(mass[..., 0], group), rtol=1e-5, atol=0)


@pytest.mark.parametrize("decode", IMPLEMENTATIONS)
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize(
    ("batch", "kv_heads", "group", "slots", "width", "temperatures"),
    [
        (1, 1, 1, 1, 8, (1.0,)),
        (2, 2, 3, 65, 20, (1.0, 2.0)),
        (1, 1, 4, 130, 64, (0.5,)),
        (1, 1, 5, 40, 24, (1.5,)),
    ],
)
def test_perturbed_logits(decode, noise, batch, kv_heads, group, slots, width, temperatures):
    """The output stays as it is; the mass has the noise of each head and position, and the
    temperature of its row."""
    given = *draw(batch, kv_heads, group, slots, width, spread=2.0), width**-0.5
    queries = torch.arange(batch, device=DEVICE)[:, None] + 1000
    change = Perturbation(
        torch.tensor(temperatures, device=DEVICE), queries, stream_of(5, 2) if noise else None
    )
    (output, mass), (wanted, wanted_mass) = decode(*given, change), expected(*given, change)
    plain_output, plain_mass = decode(*given)
    torch.testing.assert_close(output, plain_output, rtol=0, atol=0)
    torch.testing.assert_close(output.double(), wanted, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(mass.double(), wanted_mass, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(mass.sum(2), torch.full_like(mass[..., 0], group), rtol=1e-5, atol=0)
    if slots > 1:
        assert not torch.allclose(mass, plain_mass, rtol=1e-2)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("slots", "width"), [(65, 64), (200, 128)])
def test_half_precision(dtype, slots, width):
    """The mass as exact as in float32, the output rounded once, though weights meet values in their
    dtype. Triton's interpreter cuts bfloat16 off, a whole unit in the last place."""
    given = *draw(1, 2, 3, slots, width, dtype, spread=2.0), width**-0.5
    (output, mass), (wanted, wanted_mass) = launch_decode(*given), expected(*given)
    assert (output.dtype, mass.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(
        output.double(), wanted, rtol=torch.finfo(dtype).eps * 1.01, atol=1e-5
    )
    torch.testing.assert_close(mass.double(), wanted_mass, rtol=2e-3, atol=1e-9)
    torch.testing.assert_close(mass.sum(2), torch.full_like(mass[..., 0], 3), rtol=1e-3, atol=0)


@pytest.mark.parametrize("decode", IMPLEMENTATIONS)
def test_large_logits(decode):
    """Of hundreds, of both signs: nothing overflows, and most weights vanish."""
    given = *draw(1, 1, 3, 70, 16, spread=50.0), 1.0
    (output, mass), (wanted, wanted_mass) = decode(*given), expected(*given)
    torch.testing.assert_close(output.double(), wanted, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mass.double(), wanted_mass, rtol=1e-3, atol=1e-4)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_splits_do_not_matter(monkeypatch, dtype):
    """One program, some, and one for each block of slots; a split may hold no slot, the last one is
    shorter."""
    given = draw(1, 2, 3, 205, 16, dtype)
    given[3][0, 0, :130] = given[3][0, 1, 128:] = -1
    change = Perturbation(
        torch.tensor([2.0], device=DEVICE), torch.tensor([[300]], device=DEVICE), stream_of(0, 1)
    )
    wanted, wanted_mass = expected(*given, 0.25, change)
    for programs in (1, 6, 264):
        monkeypatch.setattr(decode_kernels, "PROGRAMS", programs)
        output, mass = launch_decode(*given, 0.25, change)
        torch.testing.assert_close(output.double(), wanted, rtol=torch.finfo(dtype).eps, atol=1e-6)
        torch.testing.assert_close(mass.double(), wanted_mass, rtol=1e-5, atol=1e-9)
        assert all(map(torch.equal, launch_decode(*given, 0.25, change), (output, mass)))


@pytest.mark.parametrize("decode", IMPLEMENTATIONS)
def test_a_head_without_slots_gives_zeros(decode):
    query, keys, values, positions = draw(1, 2, 3, 20, 8)
    positions[0, 0] = -1
    output, mass = decode(query, keys, values, positions, 0.5)
    assert not output[0, :3].any()
    assert not mass[0, 0].any()
    assert mass[0, 1].sum().item() == pytest.approx(3)


@needs_triton
def test_strides_do_not_matter_and_inputs_stay():
    """Views with steps, views between columns of NaN, and the layout of slots before heads."""
    query, keys, values, held = draw(2, 2, 2, 40, 8)
    newest = torch.tensor([[50], [60]], device=DEVICE)
    change = Perturbation(torch.tensor([1.5], device=DEVICE), newest, stream_of(0, 0))
    wanted = launch_decode(query, keys, values, held, 0.5, change)
    steps = [x.repeat_interleave(3, -1)[..., ::3] for x in (query, keys, values)]
    between = [
        torch.nn.functional.pad(x, (4, 20), value=torch.nan)[..., 4:12]
        for x in (query, keys, values)
    ]
    moved = [x.transpose(1, -2).contiguous().transpose(1, -2) for x in (query, keys, values)]
    places = (
        held.repeat_interleave(2, 2)[..., ::2],
        held,
        held.transpose(1, 2).contiguous().transpose(1, 2),
    )
    for views, positions in zip((steps, between, moved), places, strict=True):
        given = *views, positions
        before = [x.clone() for x in given]
        assert all(map(torch.equal, launch_decode(*given, 0.5, change), wanted))
        assert all(
            torch.equal(x.nan_to_num(7), y.nan_to_num(7))
            for x, y in zip(given, before, strict=True)
        )


def test_float64_and_no_slots():
    query, keys, values, positions = draw(2, 1, 2, 9, 8, torch.float64)
    found = decode_with_mass(query, keys, values, positions, 0.3)
    for one, wanted in zip(found, expected(query, keys, values, positions, 0.3), strict=True):
        torch.testing.assert_close(one, wanted)
    output, mass = decode_with_mass(
        query, keys[:, :, :0], values[:, :, :0], positions[..., :0], 0.3
    )
    assert torch.equal(output, torch.zeros(2, 2, 8, dtype=torch.float64, device=DEVICE))
    assert mass.shape == (2, 1, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"query": torch.ones(2, 4, 1, 8)},
            "query is torch.float32 [2, 4, 1, 8]; use floats [batch, heads, width]",
        ),
        ({"query": torch.ones(2, 4, 8).long()}, "query is torch.int64 [2, 4, 8]; use floats"),
        (
            {"keys": torch.ones(2, 3, 5, 8)},
            "keys are torch.float32 [2, 3, 5, 8]; query [2, 4, 8] needs torch.float32",
        ),
        ({"keys": torch.ones(2, 2, 5, 4)}, "needs torch.float32 [2, a divisor of 4, slots, 8]"),
        ({"keys": torch.ones(2, 2, 5, 8).half()}, "keys are torch.float16 [2, 2, 5, 8]"),
        (
            {"values": torch.ones(2, 2, 6, 8)},
            "values: torch.float32 [2, 2, 6, 8]; keys [2, 2, 5, 8] need floats [2, 2, 5, width]",
        ),
        ({"values": torch.ones(2, 2, 5, 8).int()}, "values: torch.int32 [2, 2, 5, 8]"),
        (
            {"positions": torch.ones(2, 1, 5).long()},
            "positions: torch.int64 [2, 1, 5]; keys [2, 2, 5, 8] need t",
        ),
        ({"positions": torch.ones(2, 2, 5).bool()}, "positions: torch.bool [2, 2, 5]"),
        (
            {"perturbation": Perturbation(torch.ones(1), torch.ones(2, 9).long())},
            "queries of the perturbation: torch.int64 [2, 9] on cpu; the logits need "
            "torch.int64 [1, 1] or [2, 1]",
        ),
        (
            {"perturbation": Perturbation(torch.ones(2, 1), torch.ones(2, 1).long())},
            "temperature of the perturbation",
        ),
    ],
)
def test_bad_arguments(changes, message):
    keys = torch.ones(2, 2, 5, 8)
    given = {
        "query": torch.ones(2, 4, 8),
        "keys": keys,
        "values": keys,
        "positions": torch.ones(2, 2, 5).long(),
    }
    with pytest.raises(UserError, match=re.escape(message)):
        decode_with_mass(**{**given, "scaling": 1.0, **changes})


@needs_triton
def test_compiled_for_hopper():
    """Tensor cores where keys and values are read, in copies of 16 bytes; no spills; three programs
    share a multiprocessor's shared memory."""
    printed = compile_apart(
        """
import json, torch
from prunebook.kernels.attention.decode_kernels import launch_decode
from prunebook.kernels.attention.noise import Perturbation, stream_of
at = torch.ones(1, 1).long()
noise, tempered = (Perturbation(torch.ones(1), at, stream) for stream in (stream_of(0, 3), None))
with compiled_for() as found:
    for width, dtype, group, perturbation in (
        (128, torch.bfloat16, 4, None), (64, torch.float16, 3, None), (128, torch.float32, 1, None),
        (128, torch.bfloat16, 4, noise), (128, torch.bfloat16, 4, tempered),
    ):
        held = torch.ones(1, 2, 1000, width, dtype=dtype)
        query = torch.ones(1, 2 * group, width, dtype=dtype)
        launch_decode(query, held, held, held[..., 0].long(), 0.1, perturbation)
for one in found:
    tensor_cores = "mma.sync" in one.ptx or "wgmma" in one.ptx
    wide = "cp.async.cg.shared.global" in one.ptx
    print(json.dumps([one.name, one.stack, one.shared <= 227 * 1024 // 2, tensor_cores, wide]))
"""
    )
    pair = [["split_kernel", 0, True, True, True], ["combine_kernel", 0, True, False, False]]
    assert [json.loads(line) for line in printed.splitlines()] == pair * 5
