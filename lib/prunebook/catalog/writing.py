"""Write several files of the book: all of them or none."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from ..files import write_atomic


def write_together(root: Path, files: Mapping[Path, str]) -> list[Path]:
    """Write each file under a temporary name, then rename all; on failure the old files come back.

    Args:
        root: folder of the book.
        files: path -> text.

    Returns:
        The paths, relative to `root`.

    Raises:
        UserError: a file cannot be written; then nothing has changed.
    """
    staged = {}
    old = {}
    renamed = []
    try:
        for path, text in files.items():
            staged[path] = write_atomic(path.with_name(f".{path.name}.new"), text)
            if path.exists():
                old[path] = write_atomic(path.with_name(f".{path.name}.old"), path.read_bytes())
        for path, temporary in staged.items():
            os.replace(temporary, path)
            renamed.append(path)
    except BaseException as error:
        _undo(renamed, old)
        if isinstance(error, OSError):
            name = error.filename2 or error.filename
            raise UserError(f"cannot write {name}: {error.strerror}") from error
        raise
    finally:
        for temporary in (*staged.values(), *old.values()):
            with contextlib.suppress(FileNotFoundError):  # renamed already
                temporary.unlink()
    return [path.relative_to(root) for path in files]


def _undo(renamed: list[Path], old: Mapping[Path, Path]) -> None:
    """Put back what was there before, under each name that has been given away.

    Args:
        renamed: the files that have their new text.
        old: path -> where its old text is; a new file has none.
    """
    for path in renamed:
        if path in old:
            os.replace(old[path], path)
        else:
            path.unlink()
