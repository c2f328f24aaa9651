"""What the book adds to its theme, as a Sphinx extension: scripts where they are used, feed, cards
for links, 404."""

import html
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ..catalog.feeds import FEED

TEMPLATES = Path(__file__).parent / "templates"
# what a page holds -> the scripts that it needs
_SCRIPTS = {
    'class="pb-explorer"': ("datatables.js", "tables.js", "explorer.js"),
    'class="pb-sortable"': ("datatables.js", "tables.js"),
}
_LANDING = "LLM-pruning papers that run"
_FEED_LINK = '\n<link rel="alternate" type="application/atom+xml" title="New papers" href="{}" />\n'


def setup(app) -> dict[str, bool]:
    """Register with Sphinx."""
    app.setup_extension("sphinxext.opengraph")
    app.connect("config-inited", _configure)
    app.connect("html-collect-pages", _not_found)
    app.connect("html-page-context", _page, priority=900)  # after the extensions that add scripts
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def sources() -> list[Path]:
    """The files that the pages depend on beside the site's sources."""
    return [Path(__file__), *sorted(path for path in TEMPLATES.rglob("*") if path.is_file())]


def _configure(app, config) -> None:
    """The public address in `_config.yml` is the address of the cards, too."""
    config.ogp_site_url = config.html_baseurl
    config.ogp_site_name = config.html_title
    config.ogp_social_cards = {"image_mini": "_static/logo.png", "line_color": "#0072b2"}
    config.html_static_path.append("_scripts")
    config.templates_path.append(str(TEMPLATES))


def _not_found(app) -> Iterator[tuple[str, dict[str, str], str]]:
    path = urlsplit(app.config.html_baseurl).path or "/"
    yield "404", {"title": "Page not found", "site_path": path}, "404.html"


def _page(app, page: str, template: str, context: dict, doctree) -> None:
    """The feed's address, and scripts: those of formulas and tables only where used, none that
    starts kernels."""
    feed = html.escape(context["pathto"](FEED, 1))
    context["metatags"] = context.get("metatags", "") + _FEED_LINK.format(feed)
    if page == app.config.root_doc:
        context["title"] = _LANDING  # before the book's name, which is the page's own heading
    unused = (
        ["thebe"]
        if app.env.get_domain("math").data["has_equations"].get(page)
        else ["thebe", "mathjax"]
    )
    # Sphinx's own, which it restores before each page
    for files in (context["script_files"], context["css_files"]):
        files[:] = [file for file in files if not any(name in _all_of(file) for name in unused)]
    for mark, scripts in _SCRIPTS.items():
        if mark in context.get("body", ""):
            for script in scripts:
                app.add_js_file(script, loading_method="defer")
    contents = context["generate_toctree_html"]
    context["generate_toctree_html"] = lambda *given, **named: _labelled(contents(*given, **named))


def _all_of(file) -> str:
    """The name and the attributes of a script or style sheet, its own text among them."""
    return f"{file.filename} {file.attributes}".lower()


def _labelled(contents) -> str:
    """A table of contents in which the switches of its parts, bare icons, have a name."""
    return str(contents).replace("<summary>", '<summary aria-label="Pages of this part">')
