"""Blocks that the user names: which go, what the report says, and bad input."""

import pytest

from prunebook import list_methods, prune
from prunebook.errors import UserError
from prunebook.methods import RemoveBlocks


def test_no_paper_stands_behind_it():
    (entry,) = [entry for entry in list_methods() if entry["name"] == "remove-blocks"]
    assert entry["paper"] is None


def test_named_blocks_go_without_data(make_model):
    model = make_model("opt")
    report = prune(model, "remove-blocks", indices=[1])
    assert len(model.model.decoder.layers) == 2
    assert report.calibration is None
    assert report.sparsity == pytest.approx(1 / 3)


@pytest.mark.parametrize("indices", [[], "01", 3, [1.0], [True]])
def test_indices_are_whole_numbers(indices):
    with pytest.raises(UserError, match="is not allowed for remove-blocks; use whole numbers"):
        RemoveBlocks(indices=indices)


def test_indices_are_kept_as_a_tuple_and_counted_once():
    method = RemoveBlocks(indices=iter([2, 1, 2]))
    assert method.indices == (2, 1, 2)
    assert method.describe() == "2 blocks"
