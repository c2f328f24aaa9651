"""Tiled-CSL: the layout by hand and against the official packer, round trips, bytes, products."""

import hashlib

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebook.errors import UserError
from prunebook.methods.flash_llm.tile import locations
from prunebook.methods.flash_llm.tiled_csl import (
    TiledCSL,
    pack_tiled_csl,
    tiled_csl_linear,
    unpack_tiled_csl,
)

# Of `official_example`, packed by `InitSparseMatrixA_API_NoReorder` and `InitSparseMatrixA_API` of
# flash-llm at commit 1d2828a, compiled for a CPU: the first digits of the words' SHA-256, and the
# offsets.
OFFICIAL_WORDS = {False: "6963364eced25780", True: "4ce4b0441e8d11a2"}
OFFICIAL_OFFSETS = [0, 1126, 2187, 3314, 4106, 4834, 5628, 6089, 6487, 6947, 6947]


def official_example():
    """float16 `[384, 192]`, all its values distinct in a row; in each tile a multiple of four are
    not 0."""
    row, column = torch.meshgrid(torch.arange(384), torch.arange(192), indexing="ij")
    four = column // 4
    kept = (31 * row + 17 * four + row * four) % 10 >= 4 + row // 128 * 2
    return (
        (1 + (7919 * row + 104729 * column) % 30011)
        .where(kept, 0)
        .to(torch.int16)
        .view(torch.float16)
    )


def sparse(rows, columns, sparsity, seed=0, dtype=torch.float16):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator).to(dtype)
    return weight.masked_fill(torch.rand(rows, columns, generator=generator) < sparsity, 0)


def parts(packed):
    """Value bits and location of each word."""
    return packed.words.view(torch.int16).view(-1, 2).unbind(1)


def test_the_location_by_hand():
    """Row 9, column 0 is 64 * 9 + 8 = 584: row 9 is row 1 of its eight, and swaps chunks 0 and
    1."""
    weight = torch.zeros(128, 64, dtype=torch.float16)
    weight[9, 0] = 1.5
    packed = pack_tiled_csl(weight)
    values, places = parts(packed)
    entry = values.nonzero().item()
    assert values[entry] == torch.tensor(1.5, dtype=torch.float16).view(torch.int16)
    assert places[entry] == 584
    assert packed.words[entry] == 584 << 16 | 0x3E00
    assert packed.offsets.tolist() == [0, 1, 1]


@pytest.mark.parametrize("reorder", [False, True])
def test_the_words_are_those_of_the_official_packer(reorder):
    packed = pack_tiled_csl(official_example(), reorder)
    assert packed.offsets.tolist() == OFFICIAL_OFFSETS
    assert (
        hashlib.sha256(packed.words.numpy().tobytes())
        .hexdigest()
        .startswith(OFFICIAL_WORDS[reorder])
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 200),
    st.floats(0, 1),
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([torch.float16, torch.bfloat16]),
)
def test_the_round_trip_is_exact(rows, columns, sparsity, seed, reorder, dtype):
    weight = sparse(rows, columns, sparsity, seed, dtype)
    packed = pack_tiled_csl(weight, reorder)
    assert torch.equal(unpack_tiled_csl(packed).view(torch.int16), weight.view(torch.int16))
    tiles = -(-rows // 128) * -(-columns // 64)
    assert packed.words.dtype == packed.offsets.dtype == torch.int32
    assert len(packed.offsets) == tiles + 2
    assert packed.offsets[-1] == packed.offsets[-2]
    assert packed.nbytes == 4 * len(packed.words) + 4 * (tiles + 2)
    assert 0 <= len(packed.words) - (weight != 0).sum() <= 3 * tiles


def test_every_bit_pattern_comes_back_but_that_of_negative_zero():
    """All 65,536 of a 16-bit float: subnormals, infinities and each NaN."""
    bits = torch.arange(-(2**15), 2**15).to(torch.int16).view(256, 256)
    again = unpack_tiled_csl(pack_tiled_csl(bits.view(torch.float16))).view(torch.int16)
    assert torch.equal(again, bits.masked_fill(bits == -(2**15), 0))


def test_strides_do_not_matter():
    weight = sparse(70, 200, 0.6)
    apart = weight.T.contiguous().T
    assert not apart.is_contiguous()
    assert torch.equal(pack_tiled_csl(apart).words, pack_tiled_csl(weight).words)


def test_empty_full_and_single_entries():
    weight = torch.zeros(256, 128, dtype=torch.float16)
    weight[5, :64] = torch.arange(1, 65)  # a full row of the first tile
    weight[200, 100] = 3  # alone in the last; the two others are empty
    packed = pack_tiled_csl(weight)
    assert packed.lengths.tolist() == [64, 0, 0, 4]
    assert packed.offsets.tolist() == [0, 16, 16, 16, 17, 17]
    assert torch.equal(unpack_tiled_csl(packed), weight)
    full = sparse(128, 64, 0)
    assert pack_tiled_csl(full).lengths.tolist() == [8192]
    assert torch.equal(unpack_tiled_csl(pack_tiled_csl(full)), full)


@pytest.mark.parametrize("removed", [1, 2, 3])
def test_zeros_fill_a_tile_up_to_a_multiple_of_four_at_places_that_are_zero(removed):
    weight = torch.ones(128, 64, dtype=torch.float16)
    weight.view(-1)[torch.tensor([70, 700, 7000])[:removed]] = 0
    packed = pack_tiled_csl(weight)
    values, places = parts(packed)
    assert len(packed.words) == 8192  # the next multiple of four
    assert sorted(places[values == 0].tolist()) == sorted(
        locations(torch.tensor([70, 700, 7000])[:removed]).tolist()
    )


@pytest.mark.parametrize(
    ("shape", "tiles"), [((576, 576), 45), ((192, 576), 18), ((1536, 576), 108), ((576, 1536), 120)]
)
def test_rows_of_the_embedded_model_are_filled_up_with_empty_places(shape, tiles):
    weight = sparse(*shape, 0.7)
    packed = pack_tiled_csl(weight)
    assert len(packed.offsets) == tiles + 2
    assert 4 * (weight != 0).sum() <= packed.nbytes <= 4 * (weight != 0).sum() + 16 * tiles + 8
    assert torch.equal(unpack_tiled_csl(packed), weight)


@pytest.mark.parametrize("shape", [(3, 5, 576), (576,), (17, 576)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_product_is_that_of_the_masked_weight(shape, dtype):
    weight = sparse(200, 576, 0.6)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(
        dtype
    )
    found = tiled_csl_linear(x, pack_tiled_csl(weight))
    expected = F.linear(x, weight.to(dtype))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("weight", "given"),
    [
        (torch.zeros(128, 64), "torch.float32 [128, 64]"),
        (torch.zeros(64, dtype=torch.float16), "torch.float16 [64]"),
        (torch.zeros(0, 64, dtype=torch.float16), "torch.float16 [0, 64]"),
    ],
)
def test_other_weights_are_refused(weight, given):
    with pytest.raises(UserError) as error:
        pack_tiled_csl(weight)
    assert (
        str(error.value)
        == f"weight is {given}; Tiled-CSL holds a matrix [out, in] of float16 or bfloat16"
    )


@pytest.mark.parametrize("damage", ["words", "offsets", "order", "shape", "dtype"])
def test_parts_that_do_not_fit_are_refused(damage):
    packed = pack_tiled_csl(sparse(256, 128, 0.5))
    words = packed.words
    offsets = packed.offsets
    shape = packed.shape
    if damage == "words":
        words = words[:-1]
    elif damage == "offsets":
        offsets = offsets[:-1]
    elif damage == "order":
        offsets = offsets[[0, 2, 1, 3, 4, 5]]
    elif damage == "dtype":
        words = words.long()
    else:
        shape = (256, 192)
    with pytest.raises(UserError, match="words and offsets are torch"):
        tiled_csl_linear(torch.zeros(1, 128), TiledCSL(words, offsets, shape, packed.dtype))
