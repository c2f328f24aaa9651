"""What a paper's released code does otherwise than the paper says, shown from its record."""

import html
from collections.abc import Mapping

from ..errors import UserError
from .display import display_bundle
from .stated import Stated, find_stated

# field of an erratum -> heading of its column
_COLUMNS = {
    "paper": "The paper says",
    "code": "The released code does",
    "effect": "What it changes",
    "source": "Where",
}


def show_errata() -> None:
    """Show what the released code does otherwise than the paper, as the paper's record says.

    Raises:
        UserError: the record cannot be found, it has no errata, or one lacks a text.
    """
    stated = find_stated()
    errata = stated.errata
    if not errata:
        raise UserError("the record has no errata; remove the call of show_errata")
    _check_texts(stated)
    blocks = [
        "\n".join(f"{heading}: {each[name]}" for name, heading in _COLUMNS.items())
        for each in errata
    ]
    display_bundle({"text/html": errata_html(errata), "text/plain": "\n\n".join(blocks)})


def _check_texts(stated: Stated) -> None:
    """Raise a `UserError` for the first field of an erratum that is missing or no text."""
    # A record that came in the environment has no file.
    file = ""
    if stated.paper is not None:
        file = f"papers/{stated.paper}.ipynb: "
    for index, erratum in enumerate(stated.errata):
        for name in _COLUMNS:
            field = f"{file}paper.errata[{index}].{name}"
            if name not in erratum:
                raise UserError(f"{field}: missing")
            text = erratum[name]
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{field}: {text!r:.60} must be text")


def errata_html(errata: list[Mapping[str, str]]) -> str:
    """The errata as a table that scrolls in its own box where the page is narrow."""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in _COLUMNS.values())
    rows = "".join(f"<tr>{_cells(each)}</tr>" for each in errata)
    return (
        '<div class="pb-scroll" tabindex="0" role="region" aria-label="Errata">'
        f'<table class="pb-results pb-errata"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cells(erratum: Mapping[str, str]) -> str:
    # On one line: a blank line would end a page's HTML.
    texts = [" ".join(str(erratum[name]).split()) for name in _COLUMNS]
    return "".join(f"<td>{html.escape(text)}</td>" for text in texts)
