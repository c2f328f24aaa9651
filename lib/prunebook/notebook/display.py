"""Showing something in a notebook in several representations at once. Needs no torch."""

from typing import Any


class _Bundle:
    """One output in several representations, for `IPython.display`."""

    def __init__(self, data: dict[str, Any]):
        self.data = data

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return self.data

    def __repr__(self) -> str:
        return self.data["text/plain"]


class ShownRecord:
    """A record that is shown when it is made: as a cell's last value it must not appear twice."""

    def _ipython_display_(self) -> None:
        """Show nothing, because the function that made the record has already shown it."""


def display_bundle(data: dict[str, Any]) -> None:
    """Show one output of the notebook; outside a notebook, print its plain text.

    Args:
        data: MIME type -> content; `text/plain` must be among them.
    """
    try:
        from IPython.display import display
    except ImportError:
        display = print
    display(_Bundle(data))


def display_record(mime: str, record: dict[str, Any], page: str, text: str) -> None:
    """Show a record as HTML and as text, and leave its data beside them in the output.

    Args:
        mime: MIME type under which the data is found again.
        record: the data, JSON-able.
        page: what a page shows, as HTML.
        text: what a terminal shows.
    """
    display_bundle({mime: record, "text/html": page, "text/plain": text})
