"""What a paper's record states: the claims to be checked, and the errata. Needs no torch.

The record is YAML in the first cell of the paper's notebook. A page that runs does not see its own
first cell, so the statements reach it in one of two ways. `prunebook run` and the copies for Colab
hand them over as JSON in the environment variable `PRUNEBOOK_CLAIMS`. In a notebook that is opened
by hand they are read from the notebooks of the book in or above the working folder. Only the form
of the lists and the keys of the claims are validated here: `prunebook check` does the rest.
"""

import functools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError

CLAIMS_VARIABLE = "PRUNEBOOK_CLAIMS"
# Whose claim it is: the paper's own, what we asked beyond, or what its reviewers asked.
ORIGINS = ("paper", "ours", "reviewers")
_SESSION_VARIABLE = "JPY_SESSION_NAME"  # Jupyter names the kernel's notebook in it
_LISTS = ("claims", "errata")
_FORM = '{"claims": [{"key": "a-key", ...}], "errata": [{...}]}'
# What reading JSON or YAML that others wrote can raise; deep nesting exceeds the recursion limit.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError)


class Statement(NamedTuple):
    """What is claimed, before anything is measured; the fields are those of `claims.Claim`."""

    key: str
    statement: str
    paper: str
    source: str
    origin: str | None = None

    def check_texts(self, **texts: str) -> None:
        """Refuse an empty text among the statement's own and `texts`."""
        own = {name: getattr(self, name) for name in ("key", "statement", "paper", "source")}
        for name, text in {**own, **texts}.items():
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"claim {self.key!r}: {name} is {text!r}; needs a text")


@dataclass(frozen=True)
class Stated:
    """The statements of one record.

    Attributes:
        claims: key -> the fields of the claim, as `Record.claims` has them.
        errata: the fields of each erratum, as `Record.errata` has them.
        paper: slug of the paper; None where the statements came in the environment.
    """

    claims: dict[str, dict[str, Any]]
    errata: list[dict[str, Any]]
    paper: str | None = None

    def claim(self, key: str) -> dict[str, Any]:
        """The fields of the claim with this key.

        Raises:
            UserError: the record has no such claim.
        """
        if key not in self.claims:
            raise UserError(
                f"claim {key!r} is not in the record; allowed: {', '.join(self.claims) or 'none'}"
            )
        return self.claims[key]


class _Page:
    """The record whose claims the page in this process has checked so far."""

    paper: str | None = None


def find_stated(key: str | None = None) -> Stated:
    """The statements of the paper whose page runs.

    Without the environment variable it is the paper of the notebook that Jupyter or VS Code names,
    else the paper that has the claim `key`, else the paper of the page's check before.

    Args:
        key: a claim of the paper; None where the page needs the record as a whole.

    Raises:
        UserError: the environment variable holds something else, there is no book here, the paper
            cannot be told, or its record cannot be read.
    """
    if key is not None and not isinstance(key, str):
        raise UserError(f"claim {key!r}: key is {key!r}; needs a text")
    text = os.environ.get(CLAIMS_VARIABLE)
    if text:
        return _from_environment(text)
    root = find_book(Path.cwd())
    if root is None:
        raise UserError(
            f"no record at hand: {CLAIMS_VARIABLE} is not set, and no book is at {Path.cwd()} or "
            "above it; open the notebook in its folder, papers/"
        )
    notebooks = {path.stem: path for path in sorted((root / "papers").glob("*.ipynb"))}
    stated = _choose(notebooks, key)
    _Page.paper = stated.paper
    return stated


def find_book(start: Path) -> Path | None:
    """The nearest folder at or above `start` that holds `papers/` and `_toc.yml`, if there is."""
    for folder in (start, *start.parents):
        if (folder / "papers").is_dir() and (folder / "_toc.yml").is_file():
            return folder
    return None


def record_yaml(source: str) -> str:
    """The YAML of a record's cell, without the dashes around it."""
    return re.sub(r"\A\s*---\s*\n|\n---\s*\Z", "", source)


def stated_text(notebook: Mapping[str, Any]) -> str:
    """The claims and errata of a paper's notebook as JSON text, for `PRUNEBOOK_CLAIMS`.

    Args:
        notebook: the notebook, as JSON or `nbformat` gives it.

    Returns:
        The text; an empty one where the notebook's record has neither claims nor errata.
    """
    try:
        return _text_in(notebook)
    except _NotYAMLError:  # `prunebook check` says what is wrong with it
        return ""


class _NotYAMLError(ValueError):
    """A record's cell is not YAML."""


def _text_in(notebook: Mapping[str, Any]) -> str:
    """As `stated_text`, with an error where the record is not YAML."""
    cells = notebook["cells"]
    if not cells or cells[0]["cell_type"] != "raw":
        return ""
    return _text_of("".join(cells[0]["source"]))


@functools.lru_cache(maxsize=256)
def _text_of(source: str) -> str:
    """The claims and errata in the source of a record's cell, as JSON text."""
    import yaml

    try:
        content = yaml.load(record_yaml(source), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise _NotYAMLError(" ".join(str(error).split())) from error
    if not isinstance(content, dict) or not isinstance(content.get("paper"), dict):
        return ""
    lists = {name: content["paper"][name] for name in _LISTS if content["paper"].get(name)}
    if not lists:
        return ""
    return json.dumps(lists, ensure_ascii=False, default=str)


def _choose(notebooks: Mapping[str, Path], key: str | None) -> Stated:
    """The statements of the one paper that the page can mean."""
    for name in _names_of_this_notebook():
        if name in notebooks:
            return _read(notebooks[name])
    if key is None:
        if _Page.paper not in notebooks:
            raise UserError("cannot tell which paper this page is; check one of its claims first")
        return _read(notebooks[_Page.paper])
    having, faults = _having(notebooks.values(), key)
    for stated in having:
        if len(having) == 1 or stated.paper == _Page.paper:
            return stated
    if having:
        papers = ", ".join(stated.paper for stated in having)
        raise UserError(
            f"claim {key!r} is in the records of {papers}; check a claim first that one paper has"
        )
    nowhere = f"claim {key!r} is in no record of the book at {Path.cwd()}"
    raise UserError("; ".join([nowhere, *faults]))


def _having(paths: Iterable[Path], key: str) -> tuple[list[Stated], list[str]]:
    """The records that have a claim, and what is wrong with those that cannot be read."""
    having = []
    faults = []
    for path in paths:
        try:
            stated = _read(path)
        except UserError as error:  # a fault in another paper's record stops no page
            faults.append(str(error))
            continue
        if key in stated.claims:
            having.append(stated)
    return having, faults


def _names_of_this_notebook() -> Iterator[str]:
    """What Jupyter or VS Code says the notebook of this kernel is called, without its ending."""
    session = os.environ.get(_SESSION_VARIABLE)
    if session:
        yield Path(session).stem
    # IPython is asked only where it has been loaded: a plain script has no notebook.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    file = shell and shell.user_ns.get("__vsc_ipynb_file__")
    if file:
        yield Path(file).stem


def _read(path: Path) -> Stated:
    """The statements in a notebook of the book, read again only after it has changed."""
    try:
        return _read_once(path, path.stat().st_mtime_ns)
    except _UNREADABLE as error:
        raise UserError(f"papers/{path.name}: its record cannot be read: {error}") from error


@functools.lru_cache(maxsize=256)
def _read_once(path: Path, changed: int) -> Stated:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return _stated(json.loads(_text_in(notebook) or "{}"), path.stem)


def _from_environment(text: str) -> Stated:
    """The statements in the value of the environment variable."""
    try:
        return _stated(json.loads(text, object_pairs_hook=_object))
    except _UNREADABLE as error:
        raise UserError(f"{CLAIMS_VARIABLE} must hold JSON like {_FORM}: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, with an error where it has a name twice."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"an object has the name {name!r} twice")
    return dict(pairs)


def _stated(lists: Any, paper: str | None = None) -> Stated:
    """The statements in the lists of claims and errata.

    Raises:
        ValueError: they are not such lists, or a claim has no key of its own.
    """
    if not isinstance(lists, dict):
        raise ValueError(f"{type(lists).__name__} instead of an object")
    for name in _LISTS:
        entries = lists.get(name, [])
        if not isinstance(entries, list):
            raise ValueError(f"{name} is {type(entries).__name__}; needs a list of mappings")
        for entry in entries:
            if not isinstance(entry, dict):
                raise ValueError(f"{name} has the entry {entry!r:.60}; needs a mapping")
    claims = {}
    for claim in lists.get("claims", []):
        key = claim.get("key")
        if not isinstance(key, str) or not key.strip():
            raise ValueError(f"the key of a claim is {key!r}; needs a text")
        if key in claims:
            raise ValueError(f"two claims have the key {key!r}")
        claims[key] = claim
    return Stated(claims, lists.get("errata", []), paper)
