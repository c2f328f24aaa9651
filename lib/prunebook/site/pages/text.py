"""The text of pages on its way into the site: lists of papers, links, the state of their code."""

import html
import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

import yaml

from ...catalog import VOCABULARY, Paper, concept_anchor
from ...errors import UserError
from ...runs.executed import Execution
from ..published import PublishedPage
from .cards import admonition, escape, state_of_outputs

_MARKER = re.compile(r"<!--\s*papers:\s*(.*?)\s*-->")
_NO_PAPER = "No paper of the book carries this tag yet."

_FENCE = re.compile(r"[ \t>]*(?P<marks>`{3,}(?=[^`]*$)|~{3,})(?P<info>.*)")
_CODE_DIRECTIVES = ("{code", "{raw", "{math", "{literalinclude")
_LINK = re.compile(
    r"(?P<code>(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`))"
    r"|(?P<start>\]\(<?)(?P<target>[^()\s<>#]+)\.md(?=[#>)\s])"
)


def fill_papers(text: str, page: str, papers: Sequence[Paper]) -> str:
    """`text` with each line `<!-- papers: type-other -->` replaced by a list of the tagged papers.

    Args:
        text: the text of a page, or of a part of it.
        page: the page's path in the site, e.g. `concepts/types.md`.
        papers: all papers, in the tables' order.

    Raises:
        UserError: an anchor belongs to no tag.
    """
    tags = {}
    for facet, values in VOCABULARY.items():
        tags |= {concept_anchor(facet, value): (facet, value) for value in values}

    def fill(line: str) -> str:
        marker = _MARKER.fullmatch(line.strip())
        if not marker:
            return line
        if marker[1] not in tags:
            raise UserError(f"{page}: {line.strip()} names no tag; allowed: {', '.join(tags)}")
        facet, value = tags[marker[1]]
        tagged = [paper for paper in papers if value in paper.record.facets()[facet].values]
        items = "".join(_item(paper, page) for paper in tagged) or f"{_NO_PAPER}\n"
        return f"\n{items}\n"

    return _in_prose(text, fill)


def name_papers(contents: str, papers: Sequence[Paper]) -> str:
    """The table of contents with each paper under its short name, which fits beside a page."""
    names = {f"papers/{paper.slug}": paper.record.short for paper in papers}

    def named(entry: Any) -> Any:
        if isinstance(entry, list):
            return [named(item) for item in entry]
        if not isinstance(entry, dict):
            return entry
        titled = {key: named(value) for key, value in entry.items()}
        if entry.get("file") in names:
            titled["title"] = names[entry["file"]]
        return titled

    return yaml.safe_dump(named(yaml.safe_load(contents)), sort_keys=False, allow_unicode=True)


def adapt_links(text: str, page: str, notebooks: Collection[str]) -> str:
    """`text` with links to the `.md` of a page that is a notebook leading to its `.ipynb`.

    Args:
        text: the text of a page, or of a part of it.
        page: the page's path in the site, e.g. `papers/wanda.ipynb`.
        notebooks: the paths of such pages without their ending, e.g. `concepts/evaluation`.
    """

    def adapt(link: re.Match) -> str:
        if link["code"]:
            return link[0]
        target = unquote(link["target"])
        # A target with a slash in front starts at the book's folder, others beside the page.
        if not target.startswith("/"):
            target = posixpath.join(posixpath.dirname(page), target)
        ending = ".md"
        if posixpath.normpath(target.lstrip("/")) in notebooks:
            ending = ".ipynb"
        return f"{link['start']}{link['target']}{ending}"

    return _in_prose(text, lambda line: _LINK.sub(adapt, line))


def with_note(text: str, page: PublishedPage) -> str:
    """`text`, which begins a page, with a note under its title where outputs are missing or old.

    Raises:
        UserError: the text has no title.
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
    """The line of a paper in a list on `page`."""
    record = paper.record
    link = f"[{escape(record.short)}]({'../' * page.count('/')}papers/{record.slug}.ipynb)"
    state = ""
    if not record.is_implemented:
        state = " *(not run yet)*"
    return f"- {link}, {escape(f'{record.venue.name} {record.venue.year}')}{state}\n"


def _in_prose(text: str, change: Callable[[str], str]) -> str:
    """`text` with each line of prose changed, and code as it was."""
    lines = []
    for line, prose in _lines(text):
        if prose:
            line = change(line)
        lines.append(line)
    return "".join(lines)


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is prose: outside of fenced code, in a directive or not."""
    fences = []  # each fence that is open: its marks, and whether it holds code
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
