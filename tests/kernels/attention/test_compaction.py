"""Compaction of slots: by hand, rows bit by bit, and attention over them; references, and kernels
interpreted."""

import json
import re

import pytest
import torch
import torch.nn.functional as F
from tests.kernels.compiling import DEVICE, compile_apart, needs_triton

from prunebook.errors import UserError
from prunebook.kernels.attention import compaction
from prunebook.kernels.attention.compaction import (
    fill_holes,
    fill_holes_reference,
    launch_fill_holes,
    launch_take_kept,
    take_kept,
    take_kept_reference,
)

pytestmark = pytest.mark.usefixtures("nan_memory")
FILL = [fill_holes_reference, pytest.param(launch_fill_holes, marks=needs_triton)]
TAKE = [take_kept_reference, pytest.param(launch_take_kept, marks=needs_triton)]
KEEPS = ["random", "none", "all", "front", "back", "one each", "alternate"]


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    """Several programs share the rows of a head."""
    monkeypatch.setattr(compaction, "_SCANNED", 16)
    monkeypatch.setattr(compaction, "_MOVED", 64)


def keep_of(kind, slots):
    """Bool `[2, 3, slots]`: heads keep different rows, and in most kinds different numbers of
    them."""
    draw = torch.rand(2, 3, slots, generator=torch.Generator().manual_seed(slots))
    place = torch.arange(slots).expand(2, 3, slots)
    share = torch.tensor([[0.1, 0.5, 0.9], [0.3, 0.0, 1.0]])[..., None]
    kinds = {
        "random": draw < share,
        "none": draw < 0,
        "all": draw < 1,
        "front": place >= (share * slots).long(),  # all holes at the front
        "back": place < (share * slots).long(),
        "one each": draw == draw.amax(-1, keepdim=True),
        "alternate": place % 2 == 1,
    }
    return kinds[kind].to(DEVICE)


def rows_of(slots, width=5):
    """Keys as a model has them, bits that are NaN or subnormal among them; values; positions;
    scores."""
    generator = torch.Generator().manual_seed(slots + width)
    keys = torch.randint(
        -(2**15), 2**15, (2, slots, 3, width), generator=generator, dtype=torch.int16
    )
    values = torch.randn(2, 3, slots, width, generator=generator).half()
    positions = torch.arange(slots).repeat(2, 3, 1)
    scores = torch.rand(2, 3, slots, generator=generator)
    return [
        x.to(DEVICE) for x in (keys.view(torch.bfloat16).transpose(1, 2), values, positions, scores)
    ]


def bits(x):
    return x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


@pytest.mark.parametrize("fill", FILL)
def test_holes_are_filled_by_hand(fill):
    """Of seven slots 0, 2, 5 and 6 stay: 5 goes to 1 and 6 to 3; what lies behind is as it was."""
    keep = torch.tensor([[[1, 0, 1, 0, 0, 1, 1]]], device=DEVICE).bool()
    rows = torch.arange(7, device=DEVICE)[None, None].clone()
    assert fill(keep, [rows]).tolist() == [[4]]
    assert rows.tolist() == [[[0, 5, 2, 6, 4, 5, 6]]]


@pytest.mark.parametrize("take", TAKE)
def test_rows_are_taken_by_hand(take):
    keep = torch.tensor([[[1, 0, 1, 0, 0, 1, 1], [0, 0, 0, 0, 1, 0, 0]]], device=DEVICE).bool()
    rows = torch.arange(7, device=DEVICE).expand(1, 2, 7)
    assert take(keep, 5, [rows])[0].tolist() == [[[0, 2, 5, 6, 0], [4, 0, 0, 0, 0]]]
    assert take(keep, 2, [rows])[0].tolist() == [[[0, 2], [4, 0]]]


@pytest.mark.parametrize("fill", FILL)
@pytest.mark.parametrize("kind", KEEPS)
@pytest.mark.parametrize("slots", [1, 32, 37])
def test_in_place(fill, kind, slots):
    """The rows of each head are those that were kept, bit by bit and together; no row moves that
    need not."""
    keep = keep_of(kind, slots)
    before = rows_of(slots)
    after = [x.clone() for x in before]  # `clone` keeps the strides
    addresses = [x.data_ptr() for x in after]
    kept = fill(keep, after)
    assert kept.dtype == torch.int64
    assert torch.equal(kept, keep.sum(-1))
    assert [x.data_ptr() for x in after] == addresses
    for row in range(2):
        for head in range(3):
            n = int(kept[row, head])
            survivors = keep[row, head].nonzero()[:, 0]
            slot_of = after[2][row, head]
            assert sorted(slot_of[:n].tolist()) == survivors.tolist()
            stay = survivors[survivors < n]
            assert torch.equal(slot_of[stay], stay)
            assert torch.equal(slot_of[n:], torch.arange(n, slots, device=DEVICE))
            for old, new in zip(before, after, strict=True):
                assert torch.equal(bits(new[row, head]), bits(old[row, head][slot_of]))


@pytest.mark.parametrize("take", TAKE)
@pytest.mark.parametrize("kind", KEEPS)
@pytest.mark.parametrize(("slots", "taken"), [(1, 1), (37, 38), (32, 9)])
def test_in_order(take, kind, slots, taken):
    keep = keep_of(kind, slots)
    before = rows_of(slots)
    copies = [x.clone() for x in before]
    after = take(keep, taken, before)
    for old, copy, new in zip(before, copies, after, strict=True):
        assert torch.equal(bits(old), bits(copy))
        assert new.dtype == old.dtype
        assert new.is_contiguous()
        assert new.shape == (2, 3, taken, *old.shape[3:])
        for row in range(2):
            for head in range(3):
                survivors = bits(old[row, head][keep[row, head]])[:taken]
                assert torch.equal(bits(new[row, head, : len(survivors)]), survivors)
                assert not bits(new[row, head, len(survivors) :]).any()


@needs_triton
def test_attention_is_that_of_the_rows_kept():
    """Both ways, to within what another order of sums costs; heads keep different rows, as many
    each."""
    generator = torch.Generator().manual_seed(0)
    keys, values, query = (
        torch.randn(2, 3, size, 16, generator=generator).to(DEVICE) for size in (65, 65, 4)
    )
    keep = torch.zeros(2, 3, 65, dtype=torch.bool, device=DEVICE)
    keep.scatter_(
        2, torch.rand(2, 3, 65, generator=generator).argsort(-1)[..., :30].to(DEVICE), True
    )
    expected = F.scaled_dot_product_attention(query, keys, values, attn_mask=keep[:, :, None])
    taken = launch_take_kept(keep, 30, [keys, values])
    launch_fill_holes(keep, [keys, values])
    for k, v in (taken, (keys[:, :, :30], values[:, :, :30])):
        torch.testing.assert_close(
            F.scaled_dot_product_attention(query, k, v), expected, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("shape", [(0, 3, 8), (2, 3, 0), (2, 0, 8)])
def test_nothing_there(shape):
    keep = torch.zeros(shape, dtype=torch.bool)
    rows = torch.ones(*shape, 4)
    assert fill_holes(keep, [rows]).shape == shape[:2]
    assert take_kept(keep, 5, [rows])[0].shape == (*shape[:2], 5, 4)
    assert not take_kept(keep, 5, [rows])[0].any()


@pytest.mark.parametrize("compact", [fill_holes, lambda keep, tensors: take_kept(keep, 2, tensors)])
@pytest.mark.parametrize(
    ("keep", "tensor", "message"),
    [
        (
            torch.ones(2, 8).bool(),
            torch.ones(2, 8),
            "keep is torch.bool [2, 8]; use torch.bool [batch, heads, slots]",
        ),
        (
            torch.ones(1, 2, 8),
            torch.ones(1, 2, 8),
            "keep is torch.float32 [1, 2, 8]; use torch.bool",
        ),
        (
            torch.ones(1, 2, 8).bool(),
            torch.ones(1, 2, 9, 4),
            "tensor 0 has shape [1, 2, 9, 4]; keep [1, 2, 8] needs",
        ),
        (
            torch.ones(1, 2, 8).bool(),
            torch.ones(2, 8),
            "tensor 0 has shape [2, 8]; keep [1, 2, 8] needs [1, 2, 8] and",
        ),
    ],
)
def test_bad_arguments(compact, keep, tensor, message):
    with pytest.raises(UserError, match=re.escape(message)):
        compact(keep, [tensor])


def test_rows_that_share_memory_and_negative_slots():
    keep = torch.ones(2, 3, 8, dtype=torch.bool)
    shared = torch.ones(1, 3, 8).expand(2, 3, 8)
    with pytest.raises(
        UserError, match="tensor 0 has rows that share memory; clone it to compact it in place"
    ):
        fill_holes(keep, [shared])
    with pytest.raises(UserError, match="slots -1 is not allowed; use a number >= 0"):
        take_kept(keep, -1, [shared])


@needs_triton
def test_compiled_for_hopper():
    """No spills, and rows in loads and stores of 16 bytes."""
    printed = compile_apart(
        """
import json, torch
from prunebook.kernels.attention.compaction import launch_fill_holes, launch_take_kept
keep = torch.ones(2, 8, 32768, dtype=torch.bool)
rows = torch.ones(2, 32768, 8, 128, dtype=torch.bfloat16).transpose(1, 2)
with compiled_for() as found:
    launch_fill_holes(keep, [rows])
    launch_take_kept(keep, 16384, [rows])
wide = lambda ptx: all(f"{x}.global.v4" in ptx for x in ("ld", "st"))
print(json.dumps([(one.name, one.stack, wide(one.ptx)) for one in found]))
"""
    )
    found = json.loads(printed.splitlines()[-1])
    assert [stack for _, stack, _ in found] == [0] * 4
    assert [wide for name, _, wide in found if name == "_move_kernel"] == [True] * 2
