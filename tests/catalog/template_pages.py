"""What the filled-in templates do; `test_templates` copies this file into a clone as a test.

The pages run on a tiny model and random tokens, in this process.
"""

from pathlib import Path

import nbformat
import pytest
import torch

import prunebook as pb
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.notebook.stated import CLAIMS_VARIABLE, stated_text

PAGES = sorted((Path(__file__).parents[1] / "papers").glob("my-*.ipynb"))
# as a profile gives them; a page gets those that it assigns
SMALL = {"samples": 2, "length": 16, "windows": 3, "seeds": 2, "new_tokens": 4, "remove_blocks": 1}


def draw_tokens(tokenizer, samples, length, seed=0):
    return torch.randint(100, (samples, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_runs(path, make_model, monkeypatch, cache):
    notebook = nbformat.read(path, as_version=4)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv(CLAIMS_VARIABLE, stated_text(notebook))
    monkeypatch.setattr(pb, "load_model", lambda *_, **__: (make_model("llama"), None))
    for name in ("calibration_tokens", "training_tokens", "evaluation_tokens"):
        monkeypatch.setattr(pb, name, draw_tokens)
    page = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{path.stem}, {cell.id}", "exec"), page)
        if cell.id == "parameters":
            page |= {name: value for name, value in SMALL.items() if name in page}
    assert page["comparison"].labels[1:] == [page["baseline"], page["ours"]]


def test_a_score_method_is_a_base_of_owl(make_model, tokens):
    """The skeleton has Wanda's score, so that it is Wanda."""
    weights = {}
    for base in ("my-score", "wanda"):
        model = make_model("llama")
        pb.prune(model, "owl", sparsity=0.5, base=base, calibration=tokens)
        blocks = [block.linears.values() for block in find_blocks(model)]
        weights[base] = [torch.cat([weight_of(x).flatten() for x in block]) for block in blocks]
    for ours, wanda in zip(*weights.values(), strict=True):
        assert torch.equal(ours, wanda)
