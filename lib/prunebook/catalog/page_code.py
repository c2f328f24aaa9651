"""What the code of a page says: which claims it checks, what it shows, what it types out.

A page is the notebook of a paper, or a concept page in MyST Markdown. The cells are parsed, never
run.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import nbformat

from .reader import tags_of
from .source_graph import parse

FOLDED = {"hide-cell", "hide-input"}  # tags of cells whose code the site folds
# keywords of matplotlib whose value is a colour
_COLOUR_KEYWORDS = (
    "c",
    "color",
    "colors",
    "ecolor",
    "edgecolor",
    "edgecolors",
    "facecolor",
    "facecolors",
    "fc",
    "ec",
    "markeredgecolor",
    "markerfacecolor",
    "mec",
    "mfc",
)
_NO_COLOUR = ("none", "auto", "face", "inherit")
_HEX = re.compile(r"#[0-9A-Fa-f]{3,8}")
# a code cell of a text page: its options, e.g. `:tags: [hide-input]`, and its code
_TEXT_CELL = re.compile(
    r"^```\{code-cell\}[^\n]*\n(?P<options>(?::[^\n]*\n)*)(?P<code>.*?)^```[ \t]*$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class CodeCell:
    """A code cell of a page.

    Attributes:
        index: its place in the notebook, or among the code cells of a text page.
        source: its text.
        folded: whether the site folds its code.
        tree: the parsed text; None if it is no Python.
        lines_above: lines of a text page above the text; None in a notebook.
    """

    index: int
    source: str
    folded: bool
    tree: ast.Module | None
    lines_above: int | None = None

    @property
    def nodes(self) -> Iterator[ast.AST]:
        """All nodes of the cell's tree."""
        return ast.walk(self.tree or ast.Module([], []))

    def place(self, line: int | None = None) -> str:
        """Where the cell is, or one of its lines: by cell in a notebook, by line in a text page.

        Args:
            line: number of the line in the cell, from 1; None for the cell as a whole.
        """
        if self.lines_above is not None:
            return f"line {self.lines_above + (line or 1)}"
        if line is None:
            return f"cell {self.index}"
        return f"cell {self.index}, line {line}"


@dataclass(frozen=True)
class CheckedKeys:
    """The claims that a page checks.

    Attributes:
        written: key -> the cell that checks it, for keys that are written out.
        patterns: pattern of the keys that an f-string makes -> the cell.
        loose: texts of the cells in which a key is a variable; they may be keys.
        all_untestable: whether the page shows every claim that is not testable.
    """

    written: dict[str, int]
    patterns: dict[re.Pattern, int]
    loose: frozenset[str]
    all_untestable: bool

    def covers(self, key: str) -> bool:
        """Does the page check the claim of this key, as far as its code tells?"""
        by_pattern = any(pattern.fullmatch(key) for pattern in self.patterns)
        return key in self.written or key in self.loose or by_pattern


def code_cells(notebook: nbformat.NotebookNode) -> list[CodeCell]:
    """The code cells of a notebook, parsed."""
    cells = []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            folded = bool(FOLDED & set(tags_of(cell)))
            cells.append(CodeCell(index, cell.source, folded, _parsed(cell.source)))
    return cells


def text_code_cells(text: str) -> list[CodeCell]:
    """The code cells of a page in MyST Markdown, parsed."""
    cells = []
    for index, match in enumerate(_TEXT_CELL.finditer(text)):
        source = match["code"]
        folded = any(tag in match["options"] for tag in FOLDED)
        lines_above = text.count("\n", 0, match.start("code"))
        cells.append(CodeCell(index, source, folded, _parsed(source), lines_above))
    return cells


def checked_keys(cells: Iterable[CodeCell]) -> CheckedKeys:
    """The claims that the cells check with `pb.check` and `pb.check_rest`."""
    written = {}
    patterns = {}
    loose = set()
    all_untestable = False
    for cell in cells:
        all_untestable = all_untestable or any(_calls(cell, "check_rest"))
        for call in _calls(cell, "check"):
            key = next(iter(call.args), None)
            if isinstance(key, ast.Constant):
                written[key.value] = cell.index
            elif isinstance(key, ast.JoinedStr):
                patterns[_pattern(key)] = cell.index
            else:
                loose |= {text for text, _ in _texts(cell)}
    return CheckedKeys(written, patterns, frozenset(loose), all_untestable)


def shows_errata(cells: Iterable[CodeCell]) -> bool:
    """Does one of the cells call `pb.show_errata`?"""
    return any(any(_calls(cell, "show_errata")) for cell in cells)


def shown_sources(cell: CodeCell) -> list[str]:
    """What the cell shows with `show_source`, as it is written, e.g. `pb.methods.Wanda`."""
    sources = []
    for call in _calls(cell, "show_source"):
        sources += [ast.unparse(argument) for argument in call.args]
    return sources


def typed_colours(cell: CodeCell) -> list[tuple[int, str]]:
    """Line of the cell and text of each colour that is typed: hexadecimal, or by its name."""
    colours = [(line, text) for text, line in _texts(cell) if _HEX.fullmatch(text)]
    for node in cell.nodes:
        values = []
        if isinstance(node, ast.keyword) and node.arg in _COLOUR_KEYWORDS:
            values = [node.value]
        elif isinstance(node, ast.Dict):
            values = [
                value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value in _COLOUR_KEYWORDS
            ]
        for value in values:
            colours += _named_colours(value)
    return sorted(set(colours))


def _named_colours(value: ast.expr) -> list[tuple[int, str]]:
    """Line and text of each colour that the value of a colour's keyword names."""
    return [
        (node.lineno, node.value)
        for node in _outcomes(value)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value not in _NO_COLOUR
    ]


def _outcomes(value: ast.expr) -> Iterator[ast.expr]:
    """What an expression can turn out to be: its branches and the items of its lists."""
    if isinstance(value, ast.IfExp):
        yield from _outcomes(value.body)
        yield from _outcomes(value.orelse)
    elif isinstance(value, (ast.List, ast.Tuple)):
        for item in value.elts:
            yield from _outcomes(item)
    elif isinstance(value, (ast.ListComp, ast.GeneratorExp)):
        yield from _outcomes(value.elt)
    elif isinstance(value, ast.Subscript):
        yield from _outcomes(value.value)
    else:
        yield value


def _parsed(source: str) -> ast.Module | None:
    """The tree of a cell; None for a magic or a syntax error, which the run itself reports."""
    try:
        return parse(source)
    except SyntaxError:
        return None


def _calls(cell: CodeCell, name: str) -> Iterator[ast.Call]:
    """The calls of a function of the library by this name, e.g. `pb.check(...)`."""
    for node in cell.nodes:
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            if called == name:
                yield node


def _pattern(text: ast.JoinedStr) -> re.Pattern:
    """A pattern of what an f-string can become."""
    parts = [
        re.escape(part.value) if isinstance(part, ast.Constant) else ".+" for part in text.values
    ]
    return re.compile("".join(parts))


def _texts(cell: CodeCell) -> list[tuple[str, int]]:
    """The texts that stand in the cell, each with its line."""
    constants = [node for node in cell.nodes if isinstance(node, ast.Constant)]
    return [(node.value, node.lineno) for node in constants if isinstance(node.value, str)]
