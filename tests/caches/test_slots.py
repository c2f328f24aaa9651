"""What transformers does with a layer: it selects rows, resets the state, and may not crop."""

import pytest
import torch
from tests.caches.test_layer import SCALING, case, drive, make_layer

from prunebook.caches import H2OCache
from prunebook.errors import UserError


@pytest.mark.parametrize("how", ["reorder", "select", "repeat"])
def test_rows_carry_all_that_is_known_about_them(how):
    rows = {"reorder": [2, 0, 0], "select": [2, 1], "repeat": [0, 0, 1, 1, 2, 2]}[how]
    query, keys, values = case(6, 3, 2, 2, 12, 8)
    valid = torch.ones(3, 20, dtype=torch.bool)
    valid[2, :6] = False
    layer = make_layer(H2OCache(0.5))
    other = make_layer(H2OCache(0.5))
    drive(layer, query[:, :, :15], keys[:, :, :15], values[:, :, :15], valid[:, :15], 12)
    index = torch.tensor(rows)
    if how == "reorder":
        layer.reorder_cache(index)
    elif how == "select":
        layer.batch_select_indices(index)
    else:
        layer.batch_repeat_interleave(2)
    query = query[rows]
    keys = keys[rows]
    values = values[rows]
    valid = valid[rows]
    drive(other, query[:, :, :15], keys[:, :, :15], values[:, :, :15], valid[:, :15], 12)
    rest = (query[:, :, 15:], keys[:, :, 15:], values[:, :, 15:], valid[:, 15:], SCALING)
    torch.testing.assert_close(layer.decode(*rest), other.decode(*rest))
    for mine, theirs in zip(
        layer.positions.flatten(0, 1), other.positions.flatten(0, 1), strict=True
    ):
        assert set(mine.tolist()) == set(theirs.tolist())


def test_reset_and_crop():
    query, keys, values = case(7, 1, 1, 1, 8, 2)
    layer = make_layer(H2OCache(0.5))
    drive(layer, query, keys, values, torch.ones(1, 10).bool(), 8)
    with pytest.raises(UserError, match="cannot be cropped; generate without an assistant model"):
        layer.crop(-1)
    layer.reset()
    assert layer.get_seq_length() == 0
    sets, _ = drive(layer, query, keys, values, torch.ones(1, 10).bool(), 8)
    assert len(sets[-1][0][0]) == 4
