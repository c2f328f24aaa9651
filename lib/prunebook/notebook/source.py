"""The library's own source, shown in a notebook in place of a pasted copy."""

import functools
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

from ..errors import UserError
from .display import display_bundle

_PACKAGE = __name__.partition(".")[0]
_FOLDER = Path(__file__).parents[1]


def show_source(obj: Any) -> None:
    """Show the source of a part of the library under its dotted name and its place.

    Args:
        obj: a function, class or method of the library; a partial function stands for what it
            calls, a wrapped one for what it wraps.

    Raises:
        UserError: `obj` has no Python source in the library.
    """
    target = obj
    if isinstance(obj, functools.partial):
        target = obj.func
    target = inspect.unwrap(target)
    module = getattr(inspect.getmodule(target), "__name__", "")
    is_code = inspect.isclass(target) or inspect.isroutine(target)
    if not is_code or module.partition(".")[0] != _PACKAGE:
        raise UserError(f"show_source: {obj!r} is no function, class or method of {_PACKAGE}")
    try:
        lines, first = inspect.getsourcelines(target)
    except (OSError, TypeError) as error:
        raise UserError(f"show_source: {obj!r} has no source: {error}") from error
    source = textwrap.dedent("".join(lines)).rstrip()
    file = Path(inspect.getsourcefile(target)).relative_to(_FOLDER.parent)
    name = f"{module}.{target.__qualname__}"
    place = f"{file.as_posix()}, lines {first} to {first + len(lines) - 1}"
    # Markdown is coloured by the page's own highlighting. The fence must be longer than any fence
    # in the source.
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`{3,}", source))])
    display_bundle(
        {
            "text/markdown": f"**`{name}`** ({place})\n\n{fence}python\n{source}\n{fence}",
            "text/plain": f"# {name} ({place})\n{source}",
        }
    )
