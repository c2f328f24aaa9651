"""A case: its key, its operands, and the two errors that families share."""

import math

import pytest
import torch
from tests.bench.fakes import case

from prunebook.bench.case import copied, relative_error, share_different


def test_the_key_has_the_shape_and_the_settings_in_order():
    assert case("select-rows", 8, settings={"score": "ria"}).key == "select-rows size=8 score=ria"
    assert case().key == "double size=8"


def test_copied_operands_share_no_tensor():
    operands = {"x": torch.ones(2), "name": "wanda"}
    copy = copied(operands)
    copy["x"] += 1
    assert operands["x"].tolist() == [1, 1]
    assert copy["name"] == "wanda"


def test_the_share_of_different_entries():
    assert share_different(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 4])) == 0.25
    assert share_different(torch.ones(3), torch.ones(3)) == 0


def test_the_relative_error():
    truth = torch.tensor([3.0, 4.0])
    assert relative_error(truth, truth) == 0
    assert relative_error(torch.tensor([3.0, 4.5]), truth) == pytest.approx(0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_result_that_is_not_finite_is_infinitely_wrong(value):
    assert relative_error(torch.tensor([value, 1.0]), torch.ones(2)) == math.inf
