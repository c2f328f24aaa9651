"""What the book adds to its theme, as a Sphinx extension: scripts, feed, cards for links, 404."""

import html
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ..catalog.feeds import FEED
from ..notebook.palette import BLUE

TEMPLATES = Path(__file__).parent / "templates"
# What a page holds -> the scripts that it needs.
_SCRIPTS = {
    'class="pb-explorer"': ("datatables.js", "tables.js", "explorer.js"),
    'class="pb-sortable"': ("datatables.js", "tables.js"),
    'class="pb-tools pb-filter"': ("scoreboard.js",),
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


def theme_files() -> list[Path]:
    """The files that the pages depend on beside the site's sources."""
    return [Path(__file__), *sorted(path for path in TEMPLATES.rglob("*") if path.is_file())]


def _configure(app, config) -> None:
    """Set what follows from `_config.yml`: its public address is the address of the cards, too."""
    config.ogp_site_url = config.html_baseurl
    config.ogp_site_name = config.html_title
    # The names of the cards' files depend on these texts.
    config.ogp_social_cards = {"image_mini": "_static/logo.png", "line_color": BLUE.lower()}
    config.html_static_path.append("_scripts")
    config.templates_path.append(str(TEMPLATES))


def _not_found(app) -> Iterator[tuple[str, dict[str, str], str]]:
    """The page that the host shows for an unknown address."""
    path = urlsplit(app.config.html_baseurl).path or "/"
    yield "404", {"title": "Page not found", "site_path": path}, "404.html"


def _page(app, page: str, template: str, context: dict, doctree) -> None:
    """Add the feed's address and the scripts of tables to a page that needs them.

    Scripts of formulas stay only where there is one; those that start kernels go.
    """
    feed = html.escape(context["pathto"](FEED, 1))
    context["metatags"] = context.get("metatags", "") + _FEED_LINK.format(feed)
    if page == app.config.root_doc:
        context["title"] = _LANDING  # before the book's name, which is the page's own heading
    unused = ["thebe"]
    if not app.env.get_domain("math").data["has_equations"].get(page):
        unused.append("mathjax")
    # The lists are Sphinx's own, which restores them before each page.
    for files in (context["script_files"], context["css_files"]):
        files[:] = [file for file in files if not any(name in _describe(file) for name in unused)]
    for mark, scripts in _SCRIPTS.items():
        if mark in context.get("body", ""):
            for script in scripts:
                app.add_js_file(script, loading_method="defer")
    contents = context["generate_toctree_html"]
    context["generate_toctree_html"] = lambda *arguments, **options: _labelled(
        contents(*arguments, **options)
    )


def _describe(file) -> str:
    """Name and attributes of a script or style sheet, its own text among them, in lower case."""
    return f"{file.filename} {file.attributes}".lower()


def _labelled(contents) -> str:
    """A table of contents whose switches, which are bare icons, have a name for screen readers."""
    return str(contents).replace("<summary>", '<summary aria-label="Pages of this part">')
