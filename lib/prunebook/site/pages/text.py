"""The text of pages on its way into the site: lists of papers at their markers, links, the state of
a page's code."""

import html
import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from ...catalog import VOCABULARY, Paper, concept_anchor
from ...errors import UserError
from ...runs.executed import Execution
from ...runs.text_notebooks import front_matter
from ..published import PublishedPage
from .cards import admonition, escape, state_of_outputs

# what front matter may set: other settings of MyST could have a build run code, or load it into
# Sphinx
_SETTINGS = {"file_format", "html_theme.sidebar_secondary.remove", "jupytext", "kernelspec"}
_MARKER = re.compile(r"<!--\s*papers:\s*(.*?)\s*-->")
_NO_PAPER = "No paper of the book carries this tag yet."

_FENCE = re.compile(r"[ \t>]*(?P<marks>`{3,}(?=[^`]*$)|~{3,})(?P<info>.*)")
_CODE_DIRECTIVES = ("{code", "{raw", "{math", "{literalinclude")
_LINK = re.compile(
    r"(?P<code>(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`))"
    r"|(?P<start>\]\(<?)(?P<target>[^()\s<>#]+)\.md(?=[#>)\s])"
)


def check_sources(folder: Path) -> None:
    """Refuse sources under `folder` that could have the build itself run something.

    Raises:
        UserError: a page that is not Markdown, or whose front matter sets what it may not or cannot
            be read.
    """
    for path in sorted(
        path for path in folder.rglob("*") if path.suffix in (".md", ".ipynb", ".rst")
    ):
        name = path.relative_to(folder).as_posix()
        if path.suffix != ".md":
            raise UserError(f"{name}: is {path.suffix}; a page of text must be Markdown, .md")
        settings = front_matter(path, name)
        opening = (
            path.read_text(encoding="utf-8").removeprefix("\ufeff").partition("\n")[0].rstrip()
        )
        if opening.startswith("---") and not settings:
            raise UserError(
                f"{name}: begins with {opening!r}, which opens no front matter that can be read"
            )
        for key in settings:
            if key not in _SETTINGS:
                raise UserError(
                    f"{name}: the front matter sets {key!r}; allowed: "
                    f"{', '.join(sorted(_SETTINGS))}"
                )


def fill_papers(text: str, page: str, papers: Sequence[Paper]) -> str:
    """`text` with each line `<!-- papers: type-unstructured -->` replaced by the list of papers
    with that tag.

    Args:
        page: the page's path in the site, as `concepts/types.md`.
        papers: all papers, in the tables' order.
    Raises:
        UserError: an anchor that belongs to no tag.
    """
    tags = {
        concept_anchor(facet, value): (facet, value)
        for facet, values in VOCABULARY.items()
        for value in values
    }

    def fill(line: str) -> str:
        marker = _MARKER.fullmatch(line.strip())
        if not marker:
            return line
        if marker[1] not in tags:
            raise UserError(f"{page}: {line.strip()} names no tag; allowed: {', '.join(tags)}")
        facet, value = tags[marker[1]]
        tagged = [paper for paper in papers if value in paper.record.facets()[facet].values]
        return "\n" + ("".join(_item(paper, page) for paper in tagged) or f"{_NO_PAPER}\n") + "\n"

    return _in_prose(text, fill)


def name_papers(contents: str, papers: Sequence[Paper]) -> str:
    """The table of contents with each paper under its short name, which fits beside a page."""
    names = {f"papers/{paper.slug}": paper.record.short for paper in papers}

    def named(entry: Any) -> Any:
        if isinstance(entry, list):
            return [named(item) for item in entry]
        if not isinstance(entry, dict):
            return entry
        title = {"title": names[entry["file"]]} if entry.get("file") in names else {}
        return {**{key: named(value) for key, value in entry.items()}, **title}

    return yaml.safe_dump(named(yaml.safe_load(contents)), sort_keys=False, allow_unicode=True)


def adapt_links(text: str, page: str, notebooks: Collection[str]) -> str:
    """`text` with links to the `.md` of pages that are notebooks in the site leading to their
    `.ipynb`.

    Args:
        page: the page's path in the site, as `papers/wanda.ipynb`.
        notebooks: the paths of those pages without their ending, as `concepts/evaluation`.
    """

    def adapt(found: re.Match) -> str:
        if found["code"]:
            return found[0]
        target = unquote(found["target"])
        start = "" if target.startswith("/") else posixpath.dirname(page)
        known = posixpath.normpath(posixpath.join(start, target.lstrip("/"))) in notebooks
        return f"{found['start']}{found['target']}{'.ipynb' if known else '.md'}"

    return _in_prose(text, lambda line: _LINK.sub(adapt, line))


def with_note(text: str, page: PublishedPage) -> str:
    """`text`, which begins a page, with a note under its title where outputs are missing or old.

    Raises:
        UserError: there is no title.
    """
    title = re.search(r"^# .*$", text, re.MULTILINE)
    if title is None:
        raise UserError(f"{page.name}.md: must begin with its title, '# ...'")
    state = state_of_outputs(page)
    if not state:
        return text
    return "\n\n".join([text[: title.end()], admonition(state), text[title.end() :].lstrip("\n")])


def run_line(run: Execution) -> str:
    """The line at the end of a page that says when its code was run."""
    how = f"with profile {html.escape(run.profile)} in {run.seconds:.0f} s"
    return f'<p class="pb-changed">Executed on <time>{run.date}</time> {how}.</p>'


def _item(paper: Paper, page: str) -> str:
    record = paper.record
    link = f"[{escape(record.short)}]({'../' * page.count('/')}papers/{record.slug}.ipynb)"
    state = "" if record.method else " *(not run yet)*"
    return f"- {link}, {escape(f'{record.venue.name} {record.venue.year}')}{state}\n"


def _in_prose(text: str, change: Callable[[str], str]) -> str:
    return "".join(change(line) if prose else line for line, prose in _lines(text))


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is prose: outside of fenced code, in a directive or not."""
    fences = []  # of each that is open: its marks, and whether it holds code
    for line in text.splitlines(keepends=True):
        code = bool(fences) and fences[-1][1]
        fence = _FENCE.match(line)
        if fence is None:
            yield line, not code
            continue
        marks = fence["marks"]
        info = fence["info"].strip()
        if fences and not info and marks.startswith(fences[-1][0]):
            fences.pop()
        elif not code:
            fences.append((marks, not info.startswith("{") or info.startswith(_CODE_DIRECTIVES)))
        yield line, False
