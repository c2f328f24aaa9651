"""A book of two papers in a folder, small enough to break one thing at a time."""

import copy
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

from prunebook.catalog import challenge_notes, papers_table, read_papers

METHODS = {"magnitude": "Magnitude", "wanda": "Wanda"}
REGISTRY = '''"""The methods by name."""

REGISTRY = {
    "magnitude": ("magnitude", "Magnitude"),
    "wanda": ("wanda", "Wanda"),
}
'''

RECORD = {
    "slug": "wanda",
    "title": "A Simple and Effective Pruning Approach",
    "short": "Wanda",
    "authors": ["Mingjie Sun", "Zhuang Liu"],
    "year": 2024,
    "venue": {"name": "ICLR", "year": 2024, "kind": "conference"},
    "arxiv": "2306.11695",
    "openreview": "PxoFut3dWW",
    "code": {"url": "https://github.com/locuslab/wanda", "license": "MIT", "official": True},
    "links": [{"label": "Blog", "url": "https://example.org/blog"}],
    "takeaway": "Scores a weight by its size times the norm of its input.",
    "tags": {
        "type": {"values": ["Unstructured", "Semi-structured"]},
        "criteria": {"values": ["Wanda"]},
        "budget": {"values": ["Sparsity"], "detail": "layer"},
        "data": {"values": ["Calibration"]},
        "retrain": {"values": ["Without"]},
        "weight": {"values": ["Frozen"]},
    },
    "runs_in": [{"runtime": "transformers", "status": "tested", "date": "DATE", "note": "reloads"}],
    "challenge": "wanda-simple-2024",
    "added": "DATE",
    "method": "wanda",
}


def record(**changes) -> dict:
    """The record as YAML gives it, with `changes`; a key like `tags.type` reaches inside."""
    result = yaml.safe_load(yaml.safe_dump(RECORD).replace("DATE", "2026-11-23"))
    for key, value in changes.items():
        *parents, last = key.split(".")
        target = result
        for parent in parents:
            target = target[parent]
        target[last] = copy.deepcopy(value)
    return result


def other_record(**changes) -> dict:
    """A second paper, of an earlier year, that does not run yet."""
    settings = {
        "slug": "scaling",
        "title": "Scaling: Laws",
        "short": "Scaling",
        "year": 2023,
        "arxiv": None,
        "openreview": None,
        "code": None,
        "links": [],
        "challenge": "scaling-2023",
        "method": None,
        **changes,
    }
    return record(**settings)


def cell(tag: str, source: str, make=new_code_cell):
    """A cell with one tag."""
    return make(source, metadata={"tags": [tag]})


def notebook(paper: dict) -> nbformat.NotebookNode:
    """A sound notebook of `paper`: with code if it has a method or an implementation."""
    front = yaml.safe_dump({"paper": paper}, sort_keys=False)
    cells = [
        cell("record", front, new_raw_cell),
        new_markdown_cell(f"# {paper['short']}"),
        cell("method", "$S = |W|$", new_markdown_cell),
    ]
    if paper["method"] or paper.get("implementation"):
        cells += [cell(tag, f"# {tag}") for tag in ("parameters", "source", "run")]
        cells += [
            new_markdown_cell("## Why"),
            *(cell(tag, f"# {tag}") for tag in ("figure", "figure", "claims")),
        ]
    limits = f"## Challenge\n\n- Limits of {paper['short']}."
    cells.append(cell("challenge", limits, new_markdown_cell))
    cells.append(cell("see-also", "More.", new_markdown_cell))
    return new_notebook(cells=cells)


def write(root: Path, paper: dict, content: nbformat.NotebookNode | None = None) -> Path:
    """Write `content`, or a sound notebook, as the notebook of `paper`."""
    path = root / "papers" / f"{paper['slug']}.ipynb"
    nbformat.write(content or notebook(paper), path)
    return path


def make_book(root: Path) -> Path:
    """A book on which `check` finds nothing."""
    for folder in ("papers", "challenge", "lib/prunebook/methods", "tests/methods"):
        (root / folder).mkdir(parents=True)
    (root / "lib/prunebook/methods/registry.py").write_text(REGISTRY)
    for name, class_name in METHODS.items():
        (root / f"lib/prunebook/methods/{name}.py").write_text(f"class {class_name}:\n    pass\n")
        (root / f"tests/methods/test_{name}.py").write_text("def test_it():\n    assert True\n")
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nparts:\n- caption: Papers\n  chapters:\n"
        "  - file: papers/wanda\n    sections:\n    - file: papers/scaling.ipynb\n"
    )
    write(root, record())
    write(root, other_record())
    papers = read_papers(root)
    readme = "# Book\n\n<!-- papers:begin -->\n<!-- papers:end -->\n\nEnd.\n"
    (root / "README.md").write_text(papers_table(readme, papers))
    page = "# Challenges\n\n<!-- notes:begin -->\n<!-- notes:end -->\n"
    (root / "challenge" / "challenge.md").write_text(challenge_notes(page, papers))
    return root
