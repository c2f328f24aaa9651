"""Results kept in the user's cache: made once, shared by all processes, made again where damaged.

Each result is a folder named by a hash of all it depends on. A lock lets one process make it, it
appears under its name only when it is whole, and the hash of each file is checked when it is read.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from .files import atomic_folder, cache_folder, make_folder, write_atomic

_SEAL = "sha256.json"  # file name -> SHA-256 of its content
_CHUNK = 2**22  # bytes read at a time

T = TypeVar("T")


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
