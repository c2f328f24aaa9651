"""Which pages a change reaches: those whose rerun key differs from that at another revision."""

import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..catalog.source_graph import PACKAGE
from ..errors import UserError
from .executed import current_key
from .notebooks import Runnable

_SOURCES = ("lib/prunebook", "papers", "concepts", "benchmarks/results")


def changed_since(
    root: Path, profile: str, runnables: Sequence[Runnable], revision: str
) -> list[Runnable]:
    """The pages that would have another rerun key at the revision, or did not exist there.

    What counts is what the key counts: the page's cells, the library's modules that it reaches, its
    parameters and the records that it names; the installed packages are taken as they are now.

    Raises:
        UserError: the book is not in a git repository, or the revision is unknown there.
    """
    with tempfile.TemporaryDirectory() as folder:
        then = Path(folder)
        _check_out(root, revision, then)
        package = then / PACKAGE.relative_to(PACKAGE.parents[1])
        changed = []
        for runnable in runnables:
            before = Runnable(runnable.name, then / runnable.path.relative_to(root))
            known = before.path.is_file()
            if not known or _key_then(then, profile, before, package) != current_key(
                root, profile, runnable
            ):
                changed.append(runnable)
        return changed


def _key_then(then: Path, profile: str, runnable: Runnable, package: Path) -> str | None:
    """The rerun key at the revision; None where its profiles or its page were none that run
    today."""
    try:
        return current_key(then, profile, runnable, package)
    except (UserError, SyntaxError):
        return None


def _check_out(root: Path, revision: str, folder: Path) -> None:
    """Write the sources of the revision into the folder."""
    present = _git(root, "ls-tree", "--name-only", revision, *_SOURCES).decode().split()
    archive = _git(root, "archive", "--format=tar", revision, *present)
    path = folder / "sources.tar"
    path.write_bytes(archive)
    with tarfile.open(path) as tar:
        tar.extractall(folder, filter="data")
    path.unlink()


def _git(root: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=True)
    except OSError as error:
        raise UserError(f"git cannot be run: {error.strerror}; leave --since out") from error
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.decode(errors="replace").split())
        raise UserError(f"git says: {reason}; give a revision of {root}") from error
    return done.stdout
