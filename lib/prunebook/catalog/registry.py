"""What implements the papers: each room's `REGISTRY`, in its `__init__.py`, read without running
it, and extended."""

import ast
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError

METHODS = Path("lib/prunebook/methods")
TESTS = Path("tests/methods")
_ROOMS = ("methods", "caches")
_LIBRARY = METHODS.parent
_ALL_TESTS = TESTS.parent
_INSTALLED = Path(__file__).parents[1]
_WIDTH = 120


class Entry(NamedTuple):
    """What implements a paper, a method or a cache: its class, its file and its test, relative to
    the book's folder."""

    class_name: str
    source: Path
    test: Path


def method_names(path: Path | None = None) -> list[str]:
    """The names of the methods of pruning weights; errors as `read_registry`.

    Args:
        path: the file that holds it; None: the one of this library.
    """
    return list(_entries(path or _INSTALLED / "methods" / "__init__.py"))


def read_registry(root: Path) -> dict[str, Entry]:
    """Name -> what implements it, of the library in the book's folder, or else of the one that runs
    this.

    Raises:
        UserError: a room's file cannot be read or defines no `REGISTRY` dict, or two rooms share a
            name.
    """
    library = root / _LIBRARY if (root / METHODS / "__init__.py").is_file() else _INSTALLED
    found = {}
    for room in _ROOMS:
        if (library / room).is_dir():
            for name, (module, class_name) in _entries(library / room / "__init__.py").items():
                if name in found:
                    raise UserError(
                        f"{library / room}/__init__.py: "
                        f"{name!r} "
                        f"is registered in "
                        f"another room already"
                    )
                source = _LIBRARY / room / f"{module}.py"
                test = _ALL_TESTS / room / f"test_{module}.py"
                found[name] = Entry(class_name, source, test)
    return found


def with_method(text: str, name: str, module: str, class_name: str) -> str:
    """The source of the registry with one more method, in its alphabetical place and in `__all__`.

    Raises:
        UserError: the registry is not written as one entry a line, or the class's name is taken.
    """
    tree = ast.parse(text)
    table = _assigned(tree, "REGISTRY")
    exported = _assigned(tree, "__all__")
    names = ast.literal_eval(exported)
    if class_name in names:
        raise UserError(
            f"class name {class_name!r} is taken in {METHODS}; choose another with --short"
        )
    lines = text.splitlines(keepends=True)
    lines[exported.lineno - 1 : exported.end_lineno] = [_list("__all__ = ", [*names, class_name])]
    later = [key.lineno - 1 for key in table.keys if key.value > name]
    lines.insert(
        later[0] if later else table.end_lineno - 1,
        f'    "{name}": ("{module}", "{class_name}"),\n',
    )
    result = "".join(lines)
    try:
        written = ast.literal_eval(_assigned(ast.parse(result), "REGISTRY"))
    except (SyntaxError, ValueError):
        written = None
    if written != ast.literal_eval(table) | {name: (module, class_name)}:
        raise UserError(
            f"{METHODS}/__init__.py: REGISTRY must hold one entry a line and stand before __all__"
        )
    return result


def _entries(path: Path) -> dict[str, tuple[str, str]]:
    try:
        return ast.literal_eval(_assigned(ast.parse(path.read_text(encoding="utf-8")), "REGISTRY"))
    except (OSError, SyntaxError) as error:
        raise UserError(f"cannot read the method registry {path}: {error}") from error
    except UserError as error:
        raise UserError(f"{path} {error}") from None


def _assigned(tree: ast.Module, name: str) -> ast.expr:
    """The value that a module assigns to `name`."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value
    raise UserError(f"defines no {name}")


def _list(start: str, names: list[str]) -> str:
    """The names as ruff sorts and lays them out: constants, classes, functions."""
    quoted = [f'"{name}"' for name in sorted(names, key=lambda name: (_kind(name), name))]
    line = f"{start}[{', '.join(quoted)}]\n"
    if len(line) <= _WIDTH + 1:
        return line
    return "".join([f"{start}[\n", *(f"    {name},\n" for name in quoted), "]\n"])


def _kind(name: str) -> int:
    return 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
