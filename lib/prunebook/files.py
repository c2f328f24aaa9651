"""Files written whole or not at all, and results kept in the user's cache.

Every artefact gets a temporary name first, then its own. A cached result is a folder named by a
hash of all it depends on. A lock lets one process make it, it appears under its name only when it
is whole, and the hash of each file is checked when it is read; a damaged one is made again.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import platformdirs
from filelock import FileLock
from safetensors import SafetensorError

from .errors import UserError

_SEAL = "sha256.json"  # file name -> SHA-256 of its content
_CHUNK = 2**22  # bytes read at a time

T = TypeVar("T")


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


def cached(
    kind: str,
    identity: Iterable[str | bytes],
    write: Callable[[Path], None],
    read: Callable[[Path], T],
) -> T:
    """The result that `read` takes from its folder in the cache, which `write` fills where it must.

    Args:
        kind: the folder above, a plural noun such as `baselines`.
        identity: everything that the result depends on, in a fixed order.
        write: makes the result as files directly in the empty folder that it is given.
        read: takes the folder, whose files are those that were written.

    Raises:
        UserError: the cache cannot be written.
    """
    parts = list(identity)
    folder = _folder(kind, parts)
    if not _is_whole(folder):
        keep(kind, parts, write)
    return read(folder)


def find(kind: str, identity: Iterable[str | bytes], read: Callable[[Path], T]) -> T | None:
    """What `read` takes from the folder of this identity, or None where there is no whole one."""
    folder = _folder(kind, identity)
    try:
        return read(folder) if _is_whole(folder) else None
    except FileNotFoundError:  # another process replaces the folder at this moment
        return None


def keep(kind: str, identity: Iterable[str | bytes], write: Callable[[Path], None]) -> None:
    """Keep a result that is at hand, for `find`, unless the cache has a whole one already.

    Raises:
        UserError: the cache cannot be written.
    """
    folder = _folder(kind, identity)
    make_folder(folder.parent)
    with FileLock(f"{folder}.lock"):
        if not _is_whole(folder):  # another process may have made it meanwhile
            _make(folder, write)


def _folder(kind: str, identity: Iterable[str | bytes]) -> Path:
    """Where the result of this identity lies: its parts are told apart by their lengths."""
    digest = hashlib.sha256()
    for part in identity:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return cache_folder() / kind / digest.hexdigest()[:32]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _make(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill the folder and seal it; what was there goes only when the new one is whole."""
    if folder.exists():
        kind = folder.parent.name
        print(f"prunebook: cached {kind} {folder.name}: damaged, made again", file=sys.stderr)
    with atomic_folder(folder) as temporary:
        write(temporary)
        seal = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
        write_atomic(temporary / _SEAL, json.dumps(seal, indent=1))


def _is_whole(folder: Path) -> bool:
    """Are the folder's files those that its seal names, with the same content?"""
    try:
        seal = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
        return bool(seal) and all(
            file_digest(folder / name) == known for name, known in seal.items()
        )
    except (OSError, ValueError, AttributeError):  # missing, cut short, or no seal at all
        return False
