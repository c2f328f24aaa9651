"""Packed linears compute what the dense one does, and hold no more than its non-zero weights."""

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from prunebook.models.packed_linears import SparseLinear, UnstructuredLinear, unpacked_weight


def test_a_linear_with_a_bias_is_packed():
    linear = nn.Linear(24, 7)
    linear.weight.data.view(-1, 4)[:, ::2] = 0
    x = torch.randn(2, 3, 24)
    layer = SparseLinear.pack(linear)
    assert torch.equal(layer(x), linear(x))
    assert str(layer) == "SparseLinear(in_features=24, out_features=7, bias=True)"
    assert set(layer.state_dict()) == {"values", "codes", "bias"}
    assert torch.equal(
        copy.deepcopy(layer).bfloat16()(x.bfloat16()), linear.bfloat16()(x.bfloat16())
    )


@pytest.mark.parametrize("form", ["bitmap", "ell"])
def test_an_unstructured_linear_with_a_bias_is_packed(form):
    linear = nn.Linear(67, 7).requires_grad_(False)
    linear.weight[:, torch.arange(67) % 13 != 0] = 0
    if form == "bitmap":
        linear.weight[:, 1::3] = 1.5
    x = torch.randn(2, 3, 67)
    layer = UnstructuredLinear.pack(linear.eval())
    assert torch.equal(layer(x), linear(x))
    assert (
        str(layer) == f"UnstructuredLinear(in_features=67, out_features=7, bias=True, form={form})"
    )
    assert set(layer.state_dict()) == {"bias", "values"} | (
        {"bits", "starts"} if form == "bitmap" else {"deltas"}
    )
    assert not layer.training
    assert torch.equal(
        copy.deepcopy(layer).bfloat16()(x.bfloat16()), linear.bfloat16()(x.bfloat16())
    )


def test_the_weight_of_either_kind_is_out_by_in():
    assert unpacked_weight(nn.Linear(3, 2)).shape == (2, 3)
    assert unpacked_weight(Conv1D(2, 3)).shape == (2, 3)


@pytest.mark.parametrize(("form", "size"), [("bitmap", 0), ("ell", 8)])
def test_a_layer_to_be_filled_has_the_sizes_of_the_dense_one(form, size):
    dense = nn.Linear(40, 3, bias=False).eval()
    layer = UnstructuredLinear.zeros_like(dense, form, size)
    assert (layer.form, layer.size, layer.training) == (form, size, False)
    assert torch.equal(layer(torch.randn(2, 40)), torch.zeros(2, 3))
    layer = SparseLinear.zeros_like(dense, device="meta")
    assert (layer.values.shape, layer.codes.shape, layer.bias) == ((3, 20), (3, 3), None)
    assert layer.values.device.type == "meta"
