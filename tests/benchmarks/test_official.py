"""The comparisons with official code: adapters, their helpers and their records."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from benchmarks.official import common

FOLDER = Path(common.__file__).parent
HELPERS = {"__init__", "__main__", "common", "sheared_llama_model"}
ADAPTERS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in HELPERS)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_names_its_source_and_how_it_compares(name):
    module = importlib.import_module(f"benchmarks.official.{name}")
    assert module.REPOSITORY.startswith("https://github.com/")
    assert len(module.COMMIT) == 7
    # On the embedded model, or on tiny ones.
    assert (hasattr(module, "OURS") and hasattr(module, "official")) != hasattr(module, "parity")


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_record_is_of_the_commit_that_its_adapter_names(name):
    module = importlib.import_module(f"benchmarks.official.{name}")
    method = name.replace("_", "-")
    record = json.loads((FOLDER.parent / "results" / f"official-{method}-cpu.json").read_text())
    assert record["method"] == method
    assert record["commits"][method].startswith(module.COMMIT)
    if hasattr(module, "parity"):
        assert record["compared"]


def test_differences_are_relative_to_the_largest_official_value():
    theirs = torch.tensor([1.0, -4.0])
    assert common.relative_difference(torch.tensor([1.5, -4.0]), theirs) == 0.125
    assert common.equal_share(torch.tensor([1.0, 4.0]), theirs) == 0.5
    for compare in (common.relative_difference, common.equal_share):
        with pytest.raises(ValueError, match="shapes"):
            compare(torch.ones(1), theirs)


def test_tiny_models_and_tokens_are_the_same_every_time():
    first, second = common.tiny_llama(), common.tiny_llama()
    weights = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)
    assert torch.equal(common.tiny_tokens(2, 8), common.tiny_tokens(2, 8))
