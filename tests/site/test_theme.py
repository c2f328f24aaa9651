"""What the book adds to a page of its theme, as Sphinx's events ask for it."""

from types import SimpleNamespace

import pytest

from prunebook.site.theme import TEMPLATES, setup, theme_files


class App:
    """Stands in for Sphinx: it holds what is registered, and the scripts that are added."""

    def __init__(self, equations=()):
        self.handlers = {}
        self.extensions = []
        self.scripts = []
        has_equations = dict.fromkeys(equations, True)
        domain = SimpleNamespace(data={"has_equations": has_equations})
        self.env = SimpleNamespace(get_domain=lambda name: {"math": domain}[name])
        self.config = SimpleNamespace(
            root_doc="index",
            html_baseurl="https://x.org/book/",
            html_title="The Book",
            html_static_path=["_static"],
            templates_path=[],
        )

    def setup_extension(self, name):
        self.extensions.append(name)

    def connect(self, event, handler, priority=500):
        self.handlers[event] = handler

    def add_js_file(self, name, **attributes):
        self.scripts.append((name, attributes))


def asset(filename, **attributes):
    return SimpleNamespace(filename=filename, attributes=attributes)


def page(app, name="papers/wanda", body="", **changes):
    """The context of a page after the book has added to it."""
    context = {
        "pathto": lambda file, resource: f"../{file}",
        "script_files": [asset("thebe.js"), asset("x.js", body="MathJax = {}"), asset("own.js")],
        "css_files": [asset("sphinx-thebe.css"), asset("own.css")],
        "body": body,
        "generate_toctree_html": lambda kind: f"<{kind}><summary>+</summary></{kind}>",
        **changes,
    }
    app.handlers["html-page-context"](app, name, "page.html", context, None)
    return context


@pytest.fixture
def app():
    """An app with the book's theme, and equations on one page."""
    started = App(equations=["concepts/criteria"])
    assert setup(started) == {"parallel_read_safe": True, "parallel_write_safe": True}
    return started


def names(files):
    return [file.filename for file in files]


def test_cards_have_the_address_and_the_name_of_the_book(app):
    app.handlers["config-inited"](app, app.config)
    assert app.extensions == ["sphinxext.opengraph"]
    assert (app.config.ogp_site_url, app.config.ogp_site_name) == (
        "https://x.org/book/",
        "The Book",
    )
    assert app.config.ogp_social_cards["line_color"] == "#0072b2"
    assert app.config.html_static_path == ["_static", "_scripts"]
    assert app.config.templates_path == [str(TEMPLATES)]


@pytest.mark.parametrize(
    ("address", "path"), [("https://x.org/book/", "/book/"), ("https://x.org", "/"), ("", "/")]
)
def test_an_unknown_address_has_a_page_that_knows_where_the_site_is(app, address, path):
    app.config.html_baseurl = address
    (collected,) = app.handlers["html-collect-pages"](app)
    assert collected == ("404", {"title": "Page not found", "site_path": path}, "404.html")
    assert (TEMPLATES / "404.html").is_file()


def test_every_page_names_the_feed(app):
    context = page(app, metatags="<meta />")
    assert context["metatags"].startswith("<meta />\n<link rel=")
    assert 'href="../feed.xml"' in context["metatags"]
    assert "title" not in context
    assert page(app, "index")["title"] == "LLM-pruning papers that run"


def test_scripts_that_a_page_does_not_need_go(app):
    context = page(app)
    assert names(context["script_files"]) == ["own.js"]
    assert names(context["css_files"]) == ["own.css"]
    assert names(page(app, "concepts/criteria")["script_files"]) == ["x.js", "own.js"]


@pytest.mark.parametrize(
    ("body", "scripts"),
    [
        ("<table>", []),
        ('<table class="pb-sortable">', ["datatables.js", "tables.js"]),
        ('<div class="pb-explorer">', ["datatables.js", "tables.js", "explorer.js"]),
        ('<form class="pb-tools pb-filter" hidden>', ["scoreboard.js"]),
    ],
)
def test_a_page_with_a_table_gets_its_scripts(app, body, scripts):
    page(app, body=body)
    assert app.scripts == [(name, {"loading_method": "defer"}) for name in scripts]


def test_switches_of_the_contents_have_a_name(app):
    contents = page(app)["generate_toctree_html"]("nav")
    assert contents == '<nav><summary aria-label="Pages of this part">+</summary></nav>'


def test_the_pages_depend_on_the_templates():
    files = theme_files()
    assert files[0].name == "theme.py"
    assert TEMPLATES / "404.html" in files
    assert all(path.is_file() for path in files)
