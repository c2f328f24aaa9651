"""Which pages a change reaches: those whose rerun key is not what it was at a git revision."""

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
    """The pages that have another rerun key at the revision, or do not exist there.

    The key depends on the page's cells, the library's modules that it reaches, its parameters and
    the records that it names. The installed packages are taken as they are now.

    Args:
        root: folder of the book.
        profile: profile whose parameters count.
        runnables: pages to look at.
        revision: name of a revision that git knows, e.g. `HEAD`.

    Returns:
        Those of the pages that the changes since then reach, in the same order.

    Raises:
        UserError: the book is not in a git repository, or the revision is unknown there.
    """
    with tempfile.TemporaryDirectory() as folder:
        old_root = Path(folder)
        _check_out(root, revision, old_root)
        changed = []
        for runnable in runnables:
            old = Runnable(runnable.name, old_root / runnable.path.relative_to(root))
            if _old_key(old_root, profile, old) != current_key(root, profile, runnable):
                changed.append(runnable)
        return changed


def _old_key(old_root: Path, profile: str, runnable: Runnable) -> str | None:
    """The rerun key at the revision; None for a page that did not exist or could not run there.

    Args:
        old_root: folder with the sources of the revision.
        profile: profile whose parameters count.
        runnable: the page in that folder.
    """
    if not runnable.path.is_file():
        return None
    package = old_root / PACKAGE.relative_to(PACKAGE.parents[1])
    try:
        return current_key(old_root, profile, runnable, package)
    except (UserError, SyntaxError):
        return None


def _check_out(root: Path, revision: str, folder: Path) -> None:
    """Write the sources that the revision has into the folder."""
    present = _git(root, "ls-tree", "--name-only", revision, *_SOURCES).decode().split()
    archive = _git(root, "archive", "--format=tar", revision, *present)
    path = folder / "sources.tar"
    path.write_bytes(archive)
    with tarfile.open(path) as tar:
        tar.extractall(folder, filter="data")
    path.unlink()


def _git(root: Path, *arguments: str) -> bytes:
    """What a git command on the book's repository prints.

    Raises:
        UserError: git is missing, or the command fails.
    """
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=True)
    except OSError as error:
        raise UserError(f"git cannot be run: {error.strerror}; leave --since out") from error
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.decode(errors="replace").split())
        raise UserError(f"git says: {reason}; give a revision of {root}") from error
    return done.stdout
