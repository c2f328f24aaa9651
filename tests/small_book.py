"""A small book whose notebooks need no torch."""

import datetime
import textwrap
from pathlib import Path

import nbformat
import pytest
import yaml

from prunebook.catalog import Paper
from prunebook.runs.executed import Execution
from prunebook.site.published import Published

SHOWN = """\
import matplotlib.pyplot as plt
import prunebook as pb
rows = [{"label": "dense", "perplexity": 20.0}, {"label": "Tiny", "perplexity": 30.5}]
losses = {"Tiny": [[1.5, 2.5], [3.5, 4.5]]}
pb.results(rows, protocol={"model": model_name}, losses=losses)
figure = plt.figure()
figure.gca().plot([0, 1], [1, 0])
plt.show()
"""
CLAIMS = """\
import sys
print("noi" + "se", file=sys.stderr)
known = {"paper": "7.26", "source": "Table 2", "protocol": {"model": model_name}}
pb.claim("k1", "It is <better>", ours="30.5", verdict=True, **known)
pb.claim("k2", "It is faster", ours="1x", verdict=False, **known)
pb.not_testable("k3", "It is cheaper", paper="9", source="Figure 1", reason="no <such> device")
"""
# The claims of a record, and the cell that checks them.
STATED = [
    {
        "key": "k1",
        "origin": "paper",
        "statement": "It is better",
        "number": "7.26",
        "source": "Table 2",
    },
    {
        "key": "k2",
        "origin": "ours",
        "statement": "It is faster",
        "number": "none",
        "source": "not in the paper",
    },
]
CHECKS = """\
pb.check("k1", ours="30.5", verdict=True)
pb.check("k2", ours="1x", verdict=False)
"""
# A page of concepts/ with two code cells, a note and a place for a list of papers.
TEXT_PAGE = """\
---
kernelspec:
  name: python3
  display_name: Python 3
html_theme.sidebar_secondary.remove: true
---
# Why numbers *differ*

Text, [types](types.md).

```{code-cell}
:tags: [parameters]
samples = 1
windows: int = 2
```

:::{note}
```python
no = "cell"
```
:::

<!-- papers: criteria-wanda -->

```{code-cell}
:tags: [hide-input]
print(samples, windows)
```

The end, see [LoRA](details/LoRA.md#lora).
"""


def record(slug: str, **fields) -> dict:
    """The record of a made-up paper, with `fields` in place of some."""
    return {
        "slug": slug,
        "title": f"The {slug} paper_of * stars",
        "short": slug.title(),
        "authors": ["A. Author", "B. Bee"],
        "year": 2024,
        "venue": {"name": "ICLR", "year": 2024, "kind": "conference"},
        "arxiv": "2306.11695",
        "openreview": "PxoFut3dWW",
        "code": {"url": "https://example.org/code", "license": "MIT", "official": True},
        "links": [{"label": "Blog", "url": "https://example.org/blog"}],
        "takeaway": f"What {slug} does, < 1% of it.",
        "tags": {
            "type": {"values": ["Unstructured"]},
            "criteria": {"values": ["Wanda", "Other"]},
            "budget": {"values": ["Sparsity"], "detail": "layer"},
            "data": {"values": ["Calibration"]},
            "retrain": {"values": ["Without"]},
            "weight": {"values": ["Frozen"]},
        },
        "runs_in": [],
        "challenge": f"note-{slug}",
        "added": datetime.date(2026, 11, 23),
        "method": "wanda",
        **fields,
    }


def notebook(slug: str, *code: str, **fields) -> nbformat.NotebookNode:
    """A notebook with `code` after the cell of parameters (`model_name`, `samples`)."""
    v4 = nbformat.v4
    front = yaml.safe_dump({"paper": record(slug, **fields)}, sort_keys=False)
    tags = [["parameters"], *[["run"]] * len(code)]
    cells = [
        v4.new_raw_cell(front, metadata={"tags": ["record"]}),
        v4.new_markdown_cell(f"# {slug.title()}"),
        v4.new_markdown_cell("## Limits\n\nSome.", metadata={"tags": ["challenge"]}),
        *(
            v4.new_code_cell(source, metadata={"tags": tag})
            for source, tag in zip(['model_name = "m"\nsamples = 1', *code], tags, strict=True)
        ),
        v4.new_markdown_cell("## See also\n\nMore.", metadata={"tags": ["see-also"]}),
    ]
    return v4.new_notebook(cells=cells)


PROFILES = {
    "quick": {"default": {"model_name": "quick-model", "samples": 2}, "beta": {"samples": 5}},
    "full": {"default": {"model_name": "full-model"}},
}


CONFIG = """\
title: Tiny
repository: {url: "https://github.com/tiny/tiny"}
html: {baseurl: "https://tiny.example/book/"}
"""


class SmallBook:
    """A book's folder and how to change it."""

    def __init__(self, root: Path):
        self.root = root
        (root / "papers").mkdir()
        (root / "_toc.yml").write_text("format: jb-book\nroot: index\n")
        (root / "papers" / "profiles.yml").write_text(yaml.safe_dump(PROFILES, sort_keys=False))

    def add(self, slug: str, *code: str, **fields) -> None:
        """Write the notebook of a paper, with `fields` in its record."""
        code = [textwrap.dedent(source).strip() for source in code]
        nbformat.write(notebook(slug, *code, **fields), self.root / "papers" / f"{slug}.ipynb")


def write_sources(root: Path) -> None:
    """Write the least that a book needs beside its notebooks."""
    for name, text in {
        "_config.yml": CONFIG,
        "index.md": "# Tiny\n\n<!-- papers -->\n",
        "concepts/types.md": "# Types\n",
        "challenge/challenge.md": "# Challenges\n\n<!-- notes:begin -->\n<!-- notes:end -->\n",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)


def published(paper: Paper, execution: Execution | None, **fields) -> Published:
    """The paper as the site shows it, up to date, with a notebook without outputs.

    Args:
        paper: a paper of the book.
        execution: how its notebook was executed; None where it was not.
        fields: further fields of `Published`, e.g. `claims`.
    """
    empty = notebook(paper.slug, "1")
    fields = {"current": True, "claims": [], "results": []} | fields
    return Published(paper, empty, empty, execution, **fields)


@pytest.fixture
def book(tmp_path):
    """A book without papers."""
    return SmallBook(tmp_path)
