"""How readable is the library? Counts of what makes code dense, of sizes, and of rooms.

    python -m benchmarks.house
    python -m benchmarks.house lib/prunebook/methods     # one part, with the places

A count has a limit; one that is exceeded is marked, and ends the whole run with an error. A part's
places are listed one a line, so that they can be mended.
"""

import argparse
import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from prunebook.catalog.page_code import FOLDED

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "lib" / "prunebook"
LONGEST_LINE = 100
LONGEST_FUNCTION = 50
LONGEST_FILE = 300
LONGEST_PAGE = 130
MOST_OPTIONS = 10
# rooms whose code follows papers: they need comments
COMMENTED = ("methods", "criteria", "sparsity", "passes")
# rooms whose functions may be longer: a kernel is one function
KERNELS = ("kernels", "bench")
# per 1,000 lines that are not blank
LIMITS = {
    "tuple-packed assignments": 3.0,
    "conditional expressions": 8.0,
    "comprehensions of two or more `for`": 0.0,
    "lines over 100 characters": 0.0,
}


@dataclass
class Counts:
    """What was found in some files: lines, and the places of each finding."""

    lines: int = 0
    comments: int = 0
    places: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in LIMITS})
    long_functions: list[str] = field(default_factory=list)
    long_files: list[str] = field(default_factory=list)

    def per_thousand(self, name: str) -> float:
        """Findings for 1,000 lines that are not blank."""
        return 1000 * len(self.places[name]) / max(self.lines, 1)


def is_packed(node: ast.AST) -> bool:
    """Is this `a, b = x, y`: several values that stand in one assignment?"""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
    )


def is_double(node: ast.AST) -> bool:
    """Is this a comprehension of two or more `for`?"""
    kinds = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    return isinstance(node, kinds) and len(node.generators) > 1


def functions(tree: ast.Module) -> Iterator[tuple[str, int, int]]:
    """Name, first line and length of each function of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
            yield node.name, first, node.end_lineno - first + 1


def count(path: Path, counts: Counts) -> None:
    """Add what one Python file holds to `counts`."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    lines = source.splitlines()
    counts.lines += sum(bool(line.strip()) for line in lines)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    counts.comments += sum(token.type == tokenize.COMMENT for token in tokens)
    shown = path.relative_to(ROOT)
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_LINE:
            counts.places["lines over 100 characters"].append(f"{shown}:{number}")
    for node in ast.walk(tree):
        if is_packed(node):
            counts.places["tuple-packed assignments"].append(f"{shown}:{node.lineno}")
        if isinstance(node, ast.IfExp):
            counts.places["conditional expressions"].append(f"{shown}:{node.lineno}")
        if is_double(node):
            place = f"{shown}:{node.lineno}"
            counts.places["comprehensions of two or more `for`"].append(place)
    if len(lines) > LONGEST_FILE:
        counts.long_files.append(f"{shown}: {len(lines)} lines")
    if not set(path.parts) & set(KERNELS):
        for name, first, length in functions(tree):
            if length > LONGEST_FUNCTION:
                counts.long_functions.append(f"{shown}:{first} {name}: {length} lines")


def count_all(paths: Iterator[Path] | list[Path]) -> Counts:
    """What these files hold together."""
    counts = Counts()
    for path in sorted(paths):
        count(path, counts)
    return counts


def python_files(folder: Path) -> list[Path]:
    """The Python files of a folder and those below it, or the file itself."""
    return [folder] if folder.is_file() else sorted(folder.rglob("*.py"))


def rooms() -> tuple[list[str], list[str]]:
    """The packages and the files in the root of the library."""
    entries = sorted(path for path in LIBRARY.iterdir() if path.name != "__pycache__")
    packages = [path.name for path in entries if path.is_dir()]
    files = [path.name for path in entries if path.is_file()]
    return packages, files


def page_lengths() -> dict[str, int]:
    """Slug of each paper -> lines of code in its notebook that are neither blank nor folded."""
    lengths = {}
    for path in sorted((ROOT / "papers").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        lengths[path.stem] = sum(
            sum(bool(line.strip()) for line in cell.source.splitlines())
            for cell in notebook.cells
            if cell.cell_type == "code" and not FOLDED & set(cell.metadata.get("tags", []))
        )
    return lengths


def many_options() -> list[str]:
    """The methods that have more options than a reader keeps in mind."""
    from prunebook.methods import list_methods

    return [
        f"{entry['name']}: {len(entry['options'])} options"
        for entry in list_methods()
        if len(entry["options"]) > MOST_OPTIONS
    ]


def report(title: str, value: object, limit: object, exceeded: bool) -> bool:
    """Print one count beside its limit; returns whether it is kept."""
    mark = "  <- exceeded" if exceeded else ""
    print(f"{title:42} {value!s:>8}   limit {limit}{mark}")
    return not exceeded


def report_density(counts: Counts) -> bool:
    """Print what files hold per 1,000 lines; returns whether all limits are kept."""
    kept = True
    for name, limit in LIMITS.items():
        value = counts.per_thousand(name)
        kept &= report(name, f"{value:.1f}", limit, value > limit)
    kept &= report(
        "functions over 50 lines", len(counts.long_functions), 0, bool(counts.long_functions)
    )
    kept &= report("files over 300 lines", len(counts.long_files), 0, bool(counts.long_files))
    return kept


def show_part(folder: Path) -> None:
    """Print the density of one part of the repository, with the places."""
    counts = count_all(python_files(folder))
    report_density(counts)
    share = counts.comments / max(counts.lines, 1)
    print(f"{'comments':42} {share:8.1%}   limit 5% in {', '.join(COMMENTED)}")
    for name, places in counts.places.items():
        for place in places:
            print(f"{place}: {name}")
    for place in [*counts.long_functions, *counts.long_files]:
        print(place)


def show_house() -> bool:
    """Print all counts of the house; returns whether all limits are kept."""
    packages, files = rooms()
    kept = report("packages in lib/prunebook", len(packages), 17, len(packages) != 17)
    kept &= report("files in lib/prunebook", len(files), 4, len(files) != 4)
    kept &= report_density(count_all(python_files(LIBRARY)))
    for room in COMMENTED:
        counts = count_all(python_files(LIBRARY / room))
        share = counts.comments / counts.lines
        kept &= report(f"comments in {room}/", f"{share:.1%}", "5%", share < 0.05)
    options = many_options()
    kept &= report("methods of more than 10 options", len(options), 0, bool(options))
    lengths = sorted(page_lengths().values())
    median = lengths[len(lengths) // 2]
    kept &= report("lines of code on a page, median", median, LONGEST_PAGE, median > LONGEST_PAGE)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", type=Path, help="a folder or file; all of the house")
    part = parser.parse_args().part
    if part is not None:
        show_part(part.resolve())
    elif not show_house():
        sys.exit(1)


if __name__ == "__main__":
    main()
