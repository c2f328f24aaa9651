"""The keys of config.json, and what reads a model that has one of them."""

import pytest
import transformers

import prunebook as pb
from prunebook.models.anatomy import sublayers
from prunebook.models.config import (
    COMPRESSED,
    KEYS,
    TERNARY,
    WIDTHS,
    needs_prunebook,
    reloads_with,
)
from prunebook.models.surgery import keep_neurons, sync_config
from prunebook.models.ternary import replace_linears


def test_an_ordinary_model_needs_nothing(make_model):
    config = make_model("llama").config
    assert not needs_prunebook(config)
    assert reloads_with(config) == "transformers"


def uneven(model):
    keep_neurons(sublayers(model.model.layers[0]), range(5))
    sync_config(model)


def ternary(model):
    replace_linears(model, norm=False)


def packed(model):
    pb.prune(model, "magnitude", pattern="2:4")
    pb.compress(model)


@pytest.mark.parametrize(
    ("change", "key"), [(uneven, WIDTHS), (ternary, TERNARY), (packed, COMPRESSED)]
)
def test_each_change_writes_its_key(make_model, change, key):
    model = make_model("llama")
    change(model)
    assert [name for name in KEYS if hasattr(model.config, name)] == [key]
    assert needs_prunebook(model.config)
    assert reloads_with(model.config) == "prunebook"


def test_the_keys_are_those_of_saved_folders():
    assert KEYS == ("prunebook_widths", "prunebook_ternary", "prunebook_packed")
    config = transformers.LlamaConfig()
    assert not any(hasattr(config, key) for key in KEYS)
