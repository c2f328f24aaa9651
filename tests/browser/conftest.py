"""The book's own pages, of this very commit, and a small hostile book, in a headless Chromium."""

import contextlib
import http.server
import os
import threading
from functools import cache, partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import filelock
import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright
from tests.browser.find_browser import browser_for_tests
from tests.browser.hostile import ROOT, hostile_site

from prunebook.site.build import build_site

_AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
# The time of axe grows with the elements, hidden ones too, and colours depend on classes alone. So
# it sees three visible tokens of each class of a page's code, three formulas, and of each table
# three rows and later ones with a class that is new on the page.
_THIN_OUT = """() => {
    const tokens = {};
    const all = [...document.querySelectorAll("pre span[class]")];
    const visible = new Set(all.filter(token => token.checkVisibility()));
    for (const token of all) {
        if (visible.has(token)) tokens[token.className] = (tokens[token.className] || 0) + 1;
        if (!visible.has(token) || tokens[token.className] > 3)
            token.replaceWith(token.textContent);
    }
    [...document.querySelectorAll("mjx-container")].slice(3).forEach(formula => formula.remove());
    const classes = new Set();
    for (const row of document.querySelectorAll("tbody tr")) {
        const elements = [row, ...row.querySelectorAll("[class]")];
        const inside = elements.map(element => element.getAttribute("class"));
        const known = inside.every(name => classes.has(name));
        if (known && row.matches(":nth-child(n + 4)")) row.remove();
        inside.forEach(name => classes.add(name));
    }
}"""
_browser_for_tests = cache(browser_for_tests)


def pytest_runtest_setup(item):
    """Without a browser, skip what needs one before its site is built.

    The summary then has one line for all.
    """
    if "browser" in item.fixturenames:
        path, reason = _browser_for_tests()
        if path is None:
            pytest.skip(reason)


@pytest.fixture(scope="session")
def html():
    """The folder of the book's site, built now unless it has been built from these sources."""
    return build_site(ROOT)


@pytest.fixture(scope="session")
def hostile_html(tmp_path_factory):
    """The site of a small book with a paper by a stranger, see `hostile_site`.

    The processes of one test run share it, since running and building it takes 20 s.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    root = shared / "hostile"
    with filelock.FileLock(shared / "hostile.lock"):
        if root.exists():
            return build_site(root)  # which builds nothing, unless the other process failed
        root.mkdir()
        return hostile_site(root)


@pytest.fixture(scope="session")
def browser():
    """A running browser of Chromium's kind; `pytest_runtest_setup` has made sure of one."""
    path, _ = _browser_for_tests()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def context_of(browser):
    """`context_of(width, **options)`: the one browsing context of those options.

    Each more costs two seconds. What one page stores, the next ones find: that is the theme, which
    its script sets anew at each load. Motion is reduced, so that no colour is read on its way from
    the light theme to the dark one.
    """

    @cache
    def make(width: int, **options) -> BrowserContext:
        return browser.new_context(
            viewport={"width": width, "height": 900}, reduced_motion="reduce", **options
        )

    return make


@pytest.fixture
def open_page(context_of):
    """`open_page(address, width=1280, scheme="light", **options)`: a page in the browser.

    The address may be a file. The test fails if the page has a fault.
    """
    with contextlib.ExitStack() as stack:
        faults = []

        def start(address, width=1280, scheme="light", **options) -> Page:
            page = context_of(width, color_scheme=scheme, **options).new_page()
            stack.callback(page.close)
            page.on(
                "console", lambda message: message.type == "error" and faults.append(message.text)
            )
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on(
                "requestfailed",
                lambda request: _is_fault(request) and faults.append(f"failed: {request.url}"),
            )
            page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
            page.goto(address.as_uri() if isinstance(address, Path) else address)
            return page

        yield start
    assert faults == []


def _is_fault(request) -> bool:
    """Did the request fail, other than because the test left the page or switched scripts off?"""
    return request.failure not in ("net::ERR_ABORTED", "csp")


@pytest.fixture
def violations():
    """`violations(page, rules=None)`: what axe-core calls serious or critical, a line each.

    Without `rules` all of axe-core's are checked.
    """

    def find(page: Page, rules: list[str] | None = None) -> list[str]:
        page.evaluate(_THIN_OUT)
        page.evaluate(_AXE.read_text(encoding="utf-8"))
        options = {"resultTypes": ["violations"], "preload": False}
        if rules:
            options["runOnly"] = rules
        lines = []
        for violation in page.evaluate("options => axe.run(options)", options)["violations"]:
            if violation["impact"] in ("serious", "critical"):
                lines += [f"{violation['id']}: {node['html']}" for node in violation["nodes"]]
        return lines

    return find


class _Handler(http.server.SimpleHTTPRequestHandler):
    """As GitHub Pages serves a project: below its path, with `404.html` for what is not there."""

    def __init__(self, *arguments, prefix: str, **options):
        self.prefix = prefix
        super().__init__(*arguments, **options)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        file = Path(self.directory, path.removeprefix(self.prefix))
        is_there = file.is_file() or (file / "index.html").is_file()
        if not (path.startswith(self.prefix) and is_there):
            body = Path(self.directory, "404.html").read_bytes()
            self.send_response(404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.path = "/" + self.path.removeprefix(self.prefix)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def served(html):
    """`served(prefix)`: the address of a server that has the site below `prefix`."""
    with contextlib.ExitStack() as stack:

        def serve(prefix: str) -> str:
            handler = partial(_Handler, directory=str(html), prefix=prefix)
            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}{prefix}"

        yield serve
