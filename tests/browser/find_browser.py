"""Find a browser for the site tests, or get one: `make test` runs this once, before pytest.

As a script it prints one line: the path of a browser, or the reason why there is none. Makefile
hands the line to the tests in the variable `PRUNEBOOK_BROWSER`. The tests install nothing.
"""

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

VARIABLE = "PRUNEBOOK_BROWSER"
COMMANDS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
)
PRINT_PATH = """\
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""
START_SECONDS = 30  # a cold start of a large browser from a slow disk
DOWNLOAD = (sys.executable, "-m", "playwright", "install", "--no-shell", "chromium")
DOWNLOAD_SECONDS = 300
# Playwright tries five times. A host that never answers costs five times this, not 150 s.
CONNECTION_MILLISECONDS = "4000"
UPDATE = ("apt-get", "-o", "Acquire::http::Timeout=10", "update")
UPDATE_SECONDS = 120
INSTALL = ("apt-get", "install", "-y", "--no-install-recommends", "chromium")
INSTALL_SECONDS = 600


def find_browser() -> str | None:
    """The path of a browser that is installed: one on PATH, else the one Playwright downloaded."""
    for command in COMMANDS:
        path = shutil.which(command)
        if path and starts(path):
            return path
    path = playwright_path()
    if starts(path):
        return path
    return None


def starts(path: str) -> bool:
    """Whether the browser runs on this machine: libraries may be missing, and Ubuntu has a stub."""
    if not Path(path).is_file():
        return False
    return run((path, "--version"), START_SECONDS) is None


@functools.cache
def playwright_path() -> str:
    """Where Playwright keeps its own Chromium, downloaded or not."""
    # A process of its own: a second Playwright cannot start beside the one of a running test.
    command = [sys.executable, "-c", PRINT_PATH]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def not_found() -> str:
    """The reason for skipping where nothing was tried."""
    return (
        f"no browser: none of {', '.join(COMMANDS)} on PATH starts, "
        "and Playwright has downloaded none; `make test` tries to get one"
    )


def browser_for_tests() -> tuple[str | None, str]:
    """The browser's path and an empty reason, or None and the reason why there is none.

    The answer of the script counts where `make test` ran it; else what is installed is looked for.
    """
    answer = os.environ.get(VARIABLE)
    if answer is None:
        path = find_browser()
        if path is None:
            return None, not_found()
        return path, ""
    if os.path.isabs(answer):
        return answer, ""
    return None, answer


def get_browser() -> str:
    """The path of a browser, installed now if there is none, or one line with what was tried."""
    path = find_browser()
    if path is not None:
        return path
    tried = [f"none of {', '.join(COMMANDS)} on PATH starts"]
    for name, install in (("playwright install chromium", download), ("apt-get", apt_get)):
        print(f"no browser for the site tests yet: {name}", file=sys.stderr, flush=True)
        fault = install()
        path = find_browser()
        if path is not None:
            return path
        tried.append(f"{name}: {fault or 'its browser does not start'}")
    return f"no browser: {'; '.join(tried)}"


def download() -> str | None:
    """Have Playwright download its Chromium; return what went wrong."""
    name = "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT"
    variables = {name: CONNECTION_MILLISECONDS} | dict(os.environ)
    return run(DOWNLOAD, DOWNLOAD_SECONDS, variables)


def apt_get() -> str | None:
    """Install Debian's Chromium; return what went wrong."""
    if shutil.which("apt-get") is None:
        return "not on this system"
    if os.geteuid() != 0:
        return "needs root"
    variables = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    # Without new lists the old ones may still do, so only the installation decides.
    run(UPDATE, UPDATE_SECONDS, variables)
    return run(INSTALL, INSTALL_SECONDS, variables)


def run(command: tuple[str, ...], seconds: int, variables: dict | None = None) -> str | None:
    """Run `command` and return None, or one line that says how it failed.

    The command gets a process group of its own. Whatever of it lives after `seconds` is killed.

    Args:
        command: the program and its arguments.
        seconds: limit of its duration.
        variables: its environment; None for ours.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=variables,
            start_new_session=True,
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"no end after {seconds} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if status == 0:
            return None
        output.seek(0)
        return fault_line(output.read().decode(errors="replace"), status)


def fault_line(output: str, status: int) -> str:
    """The first line of `output` that is marked as an error, else its last, else the status."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for line in lines:
        for mark in ("Error: ", "E: "):
            if line.startswith(mark):
                return line.removeprefix(mark)
    if lines:
        return lines[-1]
    return f"exit status {status}"


if __name__ == "__main__":
    print(get_browser())
