"""Which modules of the library a piece of code can reach, told from their sources.

The hash of what a notebook or a cached measurement depends on is made from this. Modules are never
imported. They are parsed once in a process, and again only when a file of the library has changed.
"""

import ast
import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]

# Lookup tables of the library. Their entries count where code names them, not as text of their
# module.
_EXPORTS = "EXPORTS"  # name in a package -> the module of the library that defines it
_MOVED = "MOVED"  # old name of a module -> the modules that hold its names now
_REGISTRY = "REGISTRY"  # name of a method or cache -> (module in its room, class)
_REGISTERED = ("methods", "caches")

_PARSING = threading.Lock()
_LOADED: dict[Path, tuple[str, "SourceGraph"]] = {}


def source_graph(package: Path = PACKAGE) -> "SourceGraph":
    """The graph of the package as its files are now.

    Args:
        package: folder of the package.
    """
    signature = source_signature(package)
    known = _LOADED.get(package)
    if known is None or known[0] != signature:
        known = (signature, SourceGraph(package))
        _LOADED[package] = known
    return known[1]


def source_signature(package: Path = PACKAGE) -> str:
    """A hash of the names, sizes and times of change of the package's Python files."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        state = path.stat()
        digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class SourceGraph:
    """The modules of a package under their dotted names, and what a piece of code reaches."""

    def __init__(self, package: Path):
        self.name = package.name
        self.files = {}
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            self.files[name] = path
        self.sources = {name: path.read_text(encoding="utf-8") for name, path in self.files.items()}
        self.trees = {name: parse(source) for name, source in self.sources.items()}
        # Package -> name -> module, as the packages load them lazily.
        self.exports = {
            name: {
                key: f"{self.name}.{module}" for key, module in self._table(name, _EXPORTS).items()
            }
            for name, path in self.files.items()
            if path.name == "__init__.py"
        }
        self.moved = {
            key: [f"{self.name}.{place}" for place in places]
            for key, places in self._table(self.name, _MOVED).items()
        }
        self.methods = {}  # name of a method -> its module
        self.classes = {}  # dotted name of a registered class -> its module
        for room in _REGISTERED:
            package = f"{self.name}.{room}"
            for name, (module, class_name) in self._table(f"{package}.registry", _REGISTRY).items():
                self.classes[f"{package}.{class_name}"] = f"{package}.{module}"
                if room == "methods":
                    self.methods[name] = f"{package}.{module}"
        self._known_imports: dict[str, list[str]] = {}

    def text(self, module: str) -> str:
        """The module's source without the lines of its lookup table."""
        lines = self.sources[module].splitlines(keepends=True)
        for node in self._tables(module):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
        return "".join(lines)

    def reach(self, code: Iterable[str], parameters: Mapping[str, Any]) -> set[str]:
        """The modules that cells can run.

        Args:
            code: sources of the cells. One that is no plain Python, e.g. a magic, reaches every
                module.
            parameters: parameters of the page; a method that they name is reached.
        """
        start = {self.methods[text] for text in _texts(parameters) if text in self.methods}
        try:
            tree = parse("\n".join(code))
        except SyntaxError:
            return set(self.files)
        return self.reach_of(start | set(self._named(tree)))

    def reach_of(self, modules: Iterable[str]) -> set[str]:
        """The modules of the package that running any of `modules` can run, themselves included."""
        reached = set()
        waiting = []
        for name in modules:
            waiting += self._with_parents(name)
        while waiting:
            module = waiting.pop()
            if module not in reached:
                reached.add(module)
                waiting += self._imports(module)
        return reached

    def _tables(self, module: str) -> list[ast.Assign]:
        tables = (_EXPORTS, _MOVED, _REGISTRY)
        if module not in self.trees:
            return []
        return [
            node
            for node in self.trees[module].body
            if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id in tables for target in node.targets)
        ]

    def _table(self, module: str, name: str) -> dict:
        tables = {node.targets[0].id: ast.literal_eval(node.value) for node in self._tables(module)}
        return tables.get(name, {})

    def _with_parents(self, module: str) -> list[str]:
        """The module and the packages around it: importing it runs them too."""
        parts = module.split(".")
        names = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        return [name for name in names if name in self.files]

    def _resolve(self, dotted: str) -> list[str]:
        """The modules that a dotted name of the package stands in, through its lookup tables."""
        known = self.name
        for part in dotted.split(".")[1:]:
            longer = f"{known}.{part}"
            if longer in self.files:
                known = longer
            elif known == self.name and part in self.moved:
                return self.moved[part]
            elif part in self.exports.get(known, {}):
                return [known, self.exports[known][part]]
            else:
                return [self.classes.get(longer, known)]
        return [known]

    def _named(self, tree: ast.AST) -> Iterator[str]:
        """The modules that code names: by import, by attribute of an import, by a method's name."""
        aliases = {}
        for node in ast.walk(tree):
            for local, dotted in self._bindings(node):
                aliases[local] = dotted
                yield from self._resolve(dotted)
        for node in ast.walk(tree):
            dotted = _dotted(node)
            if dotted and (root := dotted.split(".")[0]) in aliases:
                yield from self._resolve(aliases[root] + dotted[len(root) :])
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and node.value in self.methods:
                yield self.methods[node.value]

    def _bindings(self, node: ast.AST) -> Iterator[tuple[str | None, str]]:
        """Local name, if it gets one, and dotted name for what an import takes from the package."""
        if isinstance(node, ast.Import):
            for item in node.names:
                if item.name.split(".")[0] == self.name:
                    if item.asname:
                        yield item.asname, item.name
                    else:
                        yield self.name, self.name
                    yield None, item.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == self.name:
            for item in node.names:
                yield item.asname or item.name, f"{node.module}.{item.name}"

    def _imports(self, module: str) -> list[str]:
        """The package's modules that a module imports in any scope, and packages around them."""
        if module not in self._known_imports:
            places = []
            for name in self._imported_names(module):
                if name.split(".")[0] == self.name:
                    places += self._resolve(name)
            reached = []
            for place in places:
                reached += self._with_parents(place)
            self._known_imports[module] = reached
        return self._known_imports[module]

    def _imported_names(self, module: str) -> list[str]:
        """The dotted names that a module imports, relative ones made absolute."""
        names = []
        package = module.split(".")
        if self.files[module].name != "__init__.py":
            package.pop()
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                names += [item.name for item in node.names]
            elif isinstance(node, ast.ImportFrom):
                source = node.module or ""
                if node.level:
                    base = ".".join(package[: len(package) - node.level + 1])
                    source = f"{base}.{source}".rstrip(".")
                names += [f"{source}.{item.name}" for item in node.names]
        return names


def parse(source: str) -> ast.Module:
    """`ast.parse`, one thread at a time: in CPython 3.11 two at once can fail (gh-106905)."""
    with _PARSING:
        return ast.parse(source)


def _dotted(node: ast.AST) -> str | None:
    """`a.b.c` for the attribute chain of a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (value := _dotted(node.value)):
        return f"{value}.{node.attr}"
    return None


def _texts(value: Any) -> Iterator[str]:
    """Every text inside nested mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
