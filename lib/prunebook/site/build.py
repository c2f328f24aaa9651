"""Build the site with Jupyter Book, check it, and only then put it in place as `_build/html`."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import filelock

from ..errors import UserError
from ..files import atomic_folder, make_folder, write_atomic
from ..runs.installed import versions_of
from .agreement import disagreements
from .assemble import assemble
from .book import Book, read_book
from .check import check_site, expectations
from .inputs import inputs_state
from .theme import theme_files
from .verdicts import contradictions

_TOOLS = (
    "jupyter-book",
    "myst-nb",
    "sphinx",
    "sphinx-book-theme",
    "sphinx-design",
    "sphinx-external-toc",
    "sphinx-mathjax-offline",
    "sphinxext-opengraph",
)
_START = "from jupyter_book.cli.main import main; main()"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PROGRESS = re.compile(r"(reading|writing) ")
_COMPLAINT = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|^\w*(Error|Exception): ")
_SHOWN_PROBLEMS = 5


class BuildError(UserError):
    """The site cannot be built or fails its check; the site built before it is still in place."""


def build_site(root: Path | str) -> Path:
    """Assemble and build the site, unless nothing has changed, and return its folder.

    Every warning is an error. The built pages are checked: all of them there, with the outputs of
    their notebooks, every internal link and anchor found, nothing loaded from a network. Only then
    they replace `_build/html`.

    Raises:
        BuildError: Jupyter Book fails or warns, the pages fail their check, or a run of this build
            contradicts a recorded one beyond noise; the log is `_build/build.log`.
        UserError: Jupyter Book is not installed or of version 2 or later, a source cannot be read,
            or a folder cannot be written.
    """
    root = Path(root).resolve()
    versions = _versions()
    html = root / "_build" / "html"
    make_folder(html.parent)
    with filelock.FileLock(html.parent / ".build.lock"):
        # The times of the inputs tell at once that nothing has changed.
        state = html / ".state"
        inputs = inputs_state(root, versions)
        if _holds(state, inputs):
            return html
        # Where only times have changed, the assembled sources are the same.
        book = read_book(root)
        _refuse_contradictions(book)
        site = assemble(book)
        digest = _digest(site, versions)
        if _holds(html / ".digest", digest):
            write_atomic(state, inputs)
            return html
        with tempfile.TemporaryDirectory(dir=html.parent, prefix=".sphinx.") as folder:
            built = _run_jupyter_book(site, Path(folder), html.parent / "build.log")
            problems = check_site(built, expectations(book))
            if problems:
                print(*problems, sep="\n", file=sys.stderr)
                raise BuildError(_summary("the site fails its check", problems))
            # A record may be of other code than a page, which no build can mend.
            for line in disagreements(built):
                print(f"warning: pages disagree: {line}", file=sys.stderr)
            with atomic_folder(html) as target:
                for item in built.iterdir():
                    os.replace(item, target / item.name)
                write_atomic(target / ".digest", digest)
                write_atomic(target / ".state", inputs)
    return html


def _refuse_contradictions(book: Book) -> None:
    """Raise a `BuildError` where a run of this build contradicts a record beyond noise."""
    lines = []
    for published in book.papers:
        lines += contradictions(published.paper.slug, published.runs, published.changes)
    if lines:
        raise BuildError("; ".join(lines))


def _holds(file: Path, text: str) -> bool:
    """Does the file hold this text?"""
    return file.is_file() and file.read_text(encoding="utf-8") == text


def _versions() -> dict[str, str]:
    """The versions of the tools that build the site; refuses a Jupyter Book that cannot."""
    versions = versions_of(*_TOOLS)
    installed = versions["jupyter-book"]
    if int(installed.split(".")[0]) >= 2:
        raise UserError(
            f"jupyter-book {installed} is installed, which ignores _config.yml; needs >=1.0.4,<2"
        )
    return versions


def _digest(site: Path, versions: dict[str, str]) -> str:
    """A hash of all the site's sources and of the tools that build it."""
    total = hashlib.sha256(repr(sorted(versions.items())).encode())
    total.update(b"".join(path.read_bytes() for path in theme_files()))
    for path in sorted(path for path in site.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(site).as_posix()} {content}\n".encode())
    return total.hexdigest()


def _run_jupyter_book(site: Path, output: Path, log: Path) -> Path:
    """Build the HTML under `output` and return its folder; all that is said goes to the log.

    Raises:
        BuildError: Jupyter Book fails or warns.
    """
    command = [sys.executable, "-c", _START, "build", str(site), "--path-output", str(output)]
    process = subprocess.Popen(
        [*command, "-W", "-n", "--keep-going"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "NO_COLOR": "1"},
    )
    with process:
        lines = _follow(process.stdout, log)
    if process.returncode:
        complaints = [line.replace(f"{site}/", "") for line in lines if _COMPLAINT.search(line)]
        problems = list(dict.fromkeys(complaints)) or lines[-1:]
        raise BuildError(_summary(f"jupyter-book failed (log: {log})", problems))
    return output / "_build" / "html"


def _follow(output: Iterable[str], log: Path) -> list[str]:
    """Write what a tool says to the log, pass its progress on to standard error, return its lines.

    On a terminal each line of progress overwrites the one before it.
    """
    end = "\n"
    if sys.stderr.isatty():
        end = "\r"
    lines = []
    with open(log, "w", encoding="utf-8") as file:
        for raw in output:
            line = _ANSI.sub("", raw).rstrip()
            lines.append(line)
            print(line, file=file)
            if _PROGRESS.match(line):
                print(line[:100], file=sys.stderr, end=end)
    return lines


def _summary(what: str, problems: Sequence[str]) -> str:
    """One line: how many problems there are, and the last ones."""
    shown = "; ".join(problems[-_SHOWN_PROBLEMS:]) or "no message"
    return f"{what}, {len(problems)} problems: {shown}"
