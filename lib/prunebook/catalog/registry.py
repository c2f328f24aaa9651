"""What implements the papers: the `REGISTRY` of each room's `registry.py`, read and extended.

The files are read without running them.
"""

import ast
import keyword
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError

METHODS = Path("lib/prunebook/methods")
TESTS = Path("tests/methods")
FILE = "registry.py"
_ROOMS = ("methods", "caches")
# room -> its files whose names a new class would hide
_NAMING = {"methods": ("__init__.py", "base.py"), "caches": ("__init__.py", "baselines.py")}
_LIBRARY = METHODS.parent
_ALL_TESTS = TESTS.parent
_INSTALLED = Path(__file__).parents[1]


class Entry(NamedTuple):
    """What implements a paper, a method or a cache; paths are relative to the book's folder."""

    class_name: str
    source: Path
    test: Path


def method_names(path: Path | None = None) -> list[str]:
    """The names of the methods of pruning weights; errors as `read_registry`.

    Args:
        path: the file that holds it; None: the one of this library.
    """
    return list(_entries(path or _INSTALLED / "methods" / FILE))


def read_registry(root: Path) -> dict[str, Entry]:
    """Name -> what implements it.

    Args:
        root: the book's folder; one without a library stands for the library that runs this.

    Raises:
        UserError: a room's file cannot be read or defines no `REGISTRY` dict, or two rooms share a
            name.
    """
    library = _INSTALLED
    if (root / METHODS / FILE).is_file():
        library = root / _LIBRARY
    entries = {}
    for room in _ROOMS:
        if not (library / room).is_dir():
            continue
        for name, (module, class_name) in _entries(library / room / FILE).items():
            if name in entries:
                raise UserError(
                    f"{library / room / FILE}: {name!r} is registered in another room already"
                )
            entries[name] = Entry(class_name, *places(room, module))
    return entries


def registry_file(room: str) -> Path:
    """The file with the `REGISTRY` of a room, `methods` or `caches`, relative to the book."""
    return _LIBRARY / room / FILE


def places(room: str, module: str) -> tuple[Path, Path]:
    """The source of a module of a room, e.g. `wanda` or `owl.method`, and its test."""
    *folders, file = module.split(".")
    inside = Path(room, *folders)
    return _LIBRARY / inside / f"{file}.py", _ALL_TESTS / inside / f"test_{file}.py"


def names_of_room(root: Path, room: str) -> set[str]:
    """The names that a new class of a room may not have: those that the room uses, and keywords.

    Args:
        root: the book's folder.
        room: `methods` or `caches`.

    Raises:
        UserError: a file of the room cannot be read.
    """
    names = set(keyword.kwlist)
    for file in _NAMING[room]:
        path = root / _LIBRARY / room / file
        if not path.is_file():
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"cannot read {path}: {error}") from error
        for statement in tree.body:
            names.update(_bound(statement))
    return names


def with_entry(
    text: str,
    name: str,
    module: str,
    class_name: str,
    room: str,
    used: Collection[str] = (),
) -> str:
    """The source of a room's registry with one more entry, in its alphabetical place.

    Args:
        text: the source as it is.
        name: name of the method or cache.
        module: the module in the room's package that defines it.
        class_name: its class.
        room: `methods` or `caches`, for the messages.
        used: names that the class may not have, beside those of the registry's classes.

    Raises:
        UserError: the registry is not written as one entry a line, or the class's name is taken.
    """
    table = _assigned(ast.parse(text), "REGISTRY")
    known = ast.literal_eval(table)
    if class_name in used or class_name in [taken for _, taken in known.values()]:
        raise UserError(
            f"class name {class_name!r} is taken in {_LIBRARY / room}; choose another with --short"
        )
    lines = text.splitlines(keepends=True)
    later = [key.lineno - 1 for key in table.keys if key.value > name]
    later.append(table.end_lineno - 1)  # the line that ends the table
    lines.insert(later[0], f'    "{name}": ("{module}", "{class_name}"),\n')
    result = "".join(lines)
    try:
        written = ast.literal_eval(_assigned(ast.parse(result), "REGISTRY"))
    except (SyntaxError, ValueError):
        written = None
    if written != known | {name: (module, class_name)}:
        raise UserError(f"{registry_file(room)}: REGISTRY must hold one entry a line")
    return result


def _entries(path: Path) -> dict[str, tuple[str, str]]:
    try:
        return ast.literal_eval(_assigned(ast.parse(path.read_text(encoding="utf-8")), "REGISTRY"))
    except (OSError, SyntaxError) as error:
        raise UserError(f"cannot read the method registry {path}: {error}") from error
    except UserError as error:
        raise UserError(f"{path} {error}") from None


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module binds, and those in its table of `EXPORTS`."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        for alias in statement.names:
            yield alias.asname or alias.name.partition(".")[0]
    elif isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
        yield statement.name
    elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
                if node.id == "EXPORTS":
                    yield from ast.literal_eval(statement.value)


def _assigned(tree: ast.Module, name: str) -> ast.expr:
    """The value that a module assigns to `name`."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value
    raise UserError(f"defines no {name}")
