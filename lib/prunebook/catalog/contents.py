"""The table of contents, `_toc.yml`: which papers it lists, and where a new one goes."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError

FILE = "_toc.yml"


def listed_papers(text: str) -> list[str]:
    """The slugs of the papers that a table of contents lists, in its order.

    Raises:
        UserError: it is no YAML.
    """
    return [
        Path(file).stem for file in _files(_parsed(text)) if Path(file).parent == Path("papers")
    ]


def with_paper(text: str, slug: str, later: Sequence[str]) -> str:
    """The table of contents with one more paper, above the first that comes after it, or last.

    Args:
        text: the table of contents.
        slug: the new paper.
        later: the slugs that come after it in the tables' order.

    Raises:
        UserError: no paper is listed in a line of its own, or the papers are listed in a way that
            one more line would not extend.
    """
    before = _parsed(text)
    lines = text.splitlines(keepends=True)
    entry = re.compile(r"(?P<start>\s*- file: )papers/(?P<slug>[^\s.]+)(\.ipynb)?\s*")
    places = {
        match["slug"]: (index, match)
        for index, line in enumerate(lines)
        if (match := entry.fullmatch(line))
    }
    if not places:
        raise UserError(
            f"{FILE}: lists no paper as `- file: papers/<slug>`, so there is no place for {slug}"
        )
    after = [place for name, place in places.items() if name in later]
    if after:
        index, match = after[0]
    else:
        index, match = list(places.values())[-1]
        index += 1
    lines.insert(index, f"{match['start']}papers/{slug}\n")
    result = "".join(lines)
    if _without(_parsed(result), {"file": f"papers/{slug}"}) != before:
        raise UserError(
            f"{FILE}: papers must stand in lines of their own, `- file: papers/<slug>`; add {slug} "
            "by hand"
        )
    return result


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{FILE}: cannot be read: {' '.join(str(error).split())}") from error


def _without(contents: Any, entry: dict[str, str]) -> Any:
    """The contents less each entry equal to `entry`, at any depth."""
    if isinstance(contents, dict):
        return {key: _without(value, entry) for key, value in contents.items()}
    if isinstance(contents, list):
        return [_without(item, entry) for item in contents if item != entry]
    return contents


def _files(contents: Any) -> Iterator[str]:
    """Every `file:` of a table of contents, at any depth."""
    if isinstance(contents, dict):
        if isinstance(contents.get("file"), str):
            yield contents["file"]
        contents = list(contents.values())
    if isinstance(contents, list):
        for item in contents:
            yield from _files(item)
