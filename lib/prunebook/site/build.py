"""Build the site with Jupyter Book, check it, and only then put it in place as `_build/html`."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import filelock

from ..errors import UserError
from ..files import atomic_folder, make_folder, write_atomic
from ..runs.installed import versions_of
from .assemble import assemble
from .check import check_site, expectations
from .inputs import inputs_state
from .published import read_published, read_published_pages
from .theme import sources

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
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_COMPLAINT = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|^\w*(Error|Exception): ")
_SHOWN_COMPLAINTS = 5


class BuildError(UserError):
    """The site cannot be built or fails its check; the site built before it is still in place."""


def build_site(root: Path | str) -> Path:
    """Assemble and build the site and return its folder, `_build/html`; nothing is done if nothing
    changed.

    Every warning is an error. The built pages are checked: all of them there, with the outputs of
    their notebooks, every internal link and anchor found, nothing loaded from a network.

    Raises:
        BuildError: Jupyter Book fails or warns, or the pages fail their check; the log is
            `_build/build.log`.
        UserError: Jupyter Book is not installed or of version 2 or later, a source cannot be read,
            or a folder cannot be written.
    """
    root = Path(root).resolve()
    versions = _versions()
    html = root / "_build" / "html"
    make_folder(html.parent)
    with filelock.FileLock(html.parent / ".build.lock"):
        state = html / ".state"
        inputs = inputs_state(root, versions)
        if _says(state, inputs):
            return html
        papers = read_published(root)
        pages = read_published_pages(root)
        site = assemble(root, papers, pages)
        digest = _digest(site, versions)
        if _says(html / ".digest", digest):
            write_atomic(state, inputs)
            return html
        with tempfile.TemporaryDirectory(dir=html.parent, prefix=".sphinx.") as folder:
            built = _jupyter_book(site, Path(folder), html.parent / "build.log")
            problems = check_site(built, expectations(site, papers, pages))
            if problems:
                print(*problems, sep="\n", file=sys.stderr)
                raise BuildError(_told("the site fails its check", problems))
            with atomic_folder(html) as target:
                for item in built.iterdir():
                    os.replace(item, target / item.name)
                write_atomic(target / ".digest", digest)
                write_atomic(target / ".state", inputs)
    return html


def _says(file: Path, text: str) -> bool:
    """Does the file hold this text?"""
    return file.is_file() and file.read_text(encoding="utf-8") == text


def _versions() -> dict[str, str]:
    versions = versions_of(*_TOOLS)
    if int(versions["jupyter-book"].split(".")[0]) >= 2:
        found = versions["jupyter-book"]
        raise UserError(
            f"jupyter-book {found} is installed, which ignores _config.yml; needs >=1.0.4,<2"
        )
    return versions


def _digest(site: Path, versions: dict[str, str]) -> str:
    """A hash of all the site's sources and of the tools that build it."""
    total = hashlib.sha256(repr(sorted(versions.items())).encode())
    total.update(b"".join(path.read_bytes() for path in sources()))
    for path in sorted(path for path in site.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(site).as_posix()} {content}\n".encode())
    return total.hexdigest()


def _jupyter_book(site: Path, output: Path, log: Path) -> Path:
    """Build the HTML under `output`; its progress is passed on to standard error, all goes to the
    log."""
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", str(site), "--path-output", str(output)]
    process = subprocess.Popen(
        [*command, "-W", "-n", "--keep-going"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "NO_COLOR": "1"},
    )
    lines = []
    with process, open(log, "w", encoding="utf-8") as file:
        for raw in process.stdout:
            line = _ANSI.sub("", raw).rstrip()
            lines.append(line)
            print(line, file=file)
            if re.match(r"(reading|writing) ", line):
                print(line[:100], file=sys.stderr, end="\r" if sys.stderr.isatty() else "\n")
    if process.returncode:
        complaints = [line.replace(f"{site}/", "") for line in lines if _COMPLAINT.search(line)]
        told = list(dict.fromkeys(complaints)) or lines[-1:]
        raise BuildError(_told(f"jupyter-book failed (log: {log})", told))
    return output / "_build" / "html"


def _told(what: str, problems: Sequence[str]) -> str:
    """One line: how many problems there are, and the last ones."""
    shown = "; ".join(problems[-_SHOWN_COMPLAINTS:]) or "no message"
    return f"{what}, {len(problems)} problems: {shown}"
