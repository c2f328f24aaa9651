"""Files written whole or not at all: every artefact gets a temporary name first, then its own."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from safetensors import SafetensorError

from .errors import UserError


def cache_folder() -> Path:
    """The user's cache of converted models and dense baselines; `PRUNEBOOK_CACHE` overrides it."""
    return Path(os.environ.get("PRUNEBOOK_CACHE") or platformdirs.user_cache_dir("prunebook"))


def make_folder(path: Path) -> Path:
    """Create `path` and the folders above it.

    Raises:
        UserError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create folder {path}: {error.strerror or error}") from error
    return path


def write_atomic(path: Path | str, content: str | bytes) -> Path:
    """Write `content` to `path` through a temporary file in the same folder and a rename.

    Raises:
        UserError: the folder cannot be written, or the disk is full; `path` is then unchanged.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` when the block ends without an error.

    An existing `path` is replaced only then. The folder before it is kept if anything fails.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        _replace_folder(temporary, path)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk in its own way
        raise UserError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, path: Path) -> None:
    """Rename `new` to `path`; a folder already there is put back if that fails, deleted if not."""
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    try:
        if path.exists():
            os.replace(path, old / "it")
        try:
            os.replace(new, path)
        except OSError:
            if (old / "it").exists():
                os.replace(old / "it", path)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
