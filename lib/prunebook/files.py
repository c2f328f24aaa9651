"""Files that are written whole or not at all, and results that are kept in the user's cache.

Every artefact is written under a temporary name and then renamed. A cached result is a folder that
is named by a hash of everything it depends on. A lock lets only one process make it, and it appears
under its name only when it is whole. The hash of each of its files is checked when it is read, and
a damaged result is made again.
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

_SEAL = "sha256.json"  # this file of a cached folder maps each file name to its SHA-256
_BYTES_PER_CHUNK = 2**22  # a file is hashed in chunks of this size, so memory stays small

T = TypeVar("T")


def cache_folder() -> Path:
    """The user's cache of converted models and dense baselines.

    The environment variable `PRUNEBOOK_CACHE` names another folder.
    """
    return Path(os.environ.get("PRUNEBOOK_CACHE") or platformdirs.user_cache_dir("prunebook"))


def make_folder(path: Path) -> Path:
    """Create `path` and the folders above it, and return it.

    Raises:
        UserError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create folder {path}: {error.strerror or error}") from error
    return path


def write_atomic(path: Path | str, content: str | bytes) -> Path:
    """Write `content` to `path` through a temporary file in the same folder and a rename.

    Args:
        path: file to write; the folders above it are created.
        content: whole content of the file; text is written as UTF-8.

    Returns:
        The path.

    Raises:
        UserError: the folder cannot be written, or the disk is full; `path` is then unchanged.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(_as_bytes(content))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _as_bytes(content: str | bytes) -> bytes:
    """The content as bytes, a text in UTF-8."""
    if isinstance(content, str):
        return content.encode()
    return content


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` when the block ends without an error.

    An existing folder at `path` is replaced only then; it stays as it is if anything fails.

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
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    except SafetensorError as error:  # safetensors reports a full disk by an error of its own
        raise UserError(f"cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, path: Path) -> None:
    """Rename `new` to `path`.

    A folder that is there already is deleted when the rename is done, and put back if it fails.
    """
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    try:
        if path.exists():
            os.replace(path, old / "previous")
        try:
            os.replace(new, path)
        except OSError:
            if (old / "previous").exists():
                os.replace(old / "previous", path)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def cached(
    kind: str,
    identity: Iterable[str | bytes],
    write: Callable[[Path], None],
    read: Callable[[Path], T],
) -> T:
    """Read a result from its folder in the cache, where `write` makes it first if it is missing.

    Args:
        kind: name of the folder in the cache, a plural noun such as `baselines`.
        identity: everything that the result depends on, in a fixed order.
        write: function that makes the result as files directly in the empty folder it gets.
        read: function that takes the folder, with the files that were written, to the result.

    Raises:
        UserError: the cache cannot be written.
    """
    parts = list(identity)
    folder = _folder(kind, parts)
    if not _is_whole(folder):
        keep_cached(kind, parts, write)
    return read(folder)


def find_cached(kind: str, identity: Iterable[str | bytes], read: Callable[[Path], T]) -> T | None:
    """Read a result from its folder in the cache; None where there is no whole folder of it.

    Args:
        kind: name of the folder in the cache, as for `cached`.
        identity: everything that the result depends on, in a fixed order.
        read: function that takes the folder to the result.
    """
    folder = _folder(kind, identity)
    if not _is_whole(folder):
        return None
    try:
        return read(folder)
    except FileNotFoundError:  # another process replaces the folder at this moment
        return None


def keep_cached(kind: str, identity: Iterable[str | bytes], write: Callable[[Path], None]) -> None:
    """Keep a result in the cache, for `find_cached`, unless a whole one is there already.

    Args:
        kind: name of the folder in the cache, as for `cached`.
        identity: everything that the result depends on, in a fixed order.
        write: function that writes the result as files directly in the empty folder it gets.

    Raises:
        UserError: the cache cannot be written.
    """
    folder = _folder(kind, identity)
    make_folder(folder.parent)
    with FileLock(f"{folder}.lock"):
        if not _is_whole(folder):  # another process may have made it while this one waited
            _make(folder, write)


def _folder(kind: str, identity: Iterable[str | bytes]) -> Path:
    """The folder of the result with this identity, which need not exist."""
    digest = hashlib.sha256()
    for part in identity:
        data = _as_bytes(part)
        # The length goes first, so that ["ab", ""] and ["a", "b"] have different hashes.
        digest.update(len(data).to_bytes(8, "little") + data)
    return cache_folder() / kind / digest.hexdigest()[:32]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_BYTES_PER_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _make(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill and seal the folder; a damaged one is replaced only when the new one is whole."""
    if folder.exists():
        kind = folder.parent.name
        print(f"prunebook: cached {kind} {folder.name}: damaged, made again", file=sys.stderr)
    with atomic_folder(folder) as temporary:
        write(temporary)
        seal = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
        write_atomic(temporary / _SEAL, json.dumps(seal, indent=1))


def _is_whole(folder: Path) -> bool:
    """Whether the folder has the files that its seal names, with the same content."""
    try:
        seal = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
        return bool(seal) and all(
            file_digest(folder / name) == digest for name, digest in seal.items()
        )
    except (OSError, ValueError, AttributeError):  # a missing or cut file, or no seal at all
        return False
