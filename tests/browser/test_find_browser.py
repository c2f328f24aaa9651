"""Which browser the site tests take, and what is tried where there is none; no network."""

import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from tests.browser import find_browser
from tests.browser.hostile import ROOT

NAMES = "chromium, chromium-browser, google-chrome, google-chrome-stable, chrome, microsoft-edge"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without commands, and with Playwright's downloads in an empty folder."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "downloads"))
    monkeypatch.delenv("PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT", raising=False)
    monkeypatch.delenv(find_browser.VARIABLE, raising=False)
    downloaded = tmp_path / "downloads" / "chrome"  # asking Playwright would take a second
    monkeypatch.setattr(find_browser, "playwright_path", lambda: str(downloaded))
    monkeypatch.setattr(find_browser, "DOWNLOAD", ("playwright", "install", "chromium"))
    monkeypatch.setattr(find_browser.os, "geteuid", lambda: 0)
    return Machine(tmp_path, downloaded)


class Machine:
    """Commands in a folder, shell scripts all, with a log of the calls of those that install."""

    def __init__(self, folder, downloaded):
        self.downloaded = downloaded
        self.bin = folder / "bin"
        self.log = folder / "log"
        self.log.touch()

    def add(self, name, body="exit 0"):
        """The path of the new command `name`."""
        return write_script(self.bin / name, body)

    def add_installer(self, name, body):
        """A command that writes down its name and arguments first."""
        self.add(name, f'echo "{name} $*" >>{self.log}\n{body}')

    def calls(self):
        return self.log.read_text().splitlines()


def write_script(path, body="exit 0"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def making(path):
    """The shell commands that make a browser that starts at `path`."""
    return f"/bin/mkdir -p {Path(path).parent}\necho '#!/bin/sh' >{path}\n/bin/chmod 755 {path}"


def test_playwright_itself_says_where_its_browser_is(monkeypatch, tmp_path):
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    assert Path(find_browser.playwright_path.__wrapped__()).is_relative_to(tmp_path)


def test_the_first_on_path_is_taken_then_what_playwright_downloaded(machine):
    expected = [machine.add(name) for name in NAMES.split(", ")]
    expected.append(write_script(machine.downloaded))
    for path in expected:
        assert find_browser.find_browser() == path
        Path(path).unlink()
    assert find_browser.find_browser() is None


def test_a_browser_that_does_not_start_is_passed_over(machine):
    machine.add("chromium", "echo 'error while loading shared libraries' >&2; exit 127")
    write_script(machine.downloaded, "exit 127")
    assert find_browser.find_browser() is None
    chrome = machine.add("google-chrome", '[ "$*" = --version ]')
    assert find_browser.find_browser() == chrome


def test_nothing_is_installed_where_there_is_a_browser(machine, capsys):
    machine.add_installer("playwright", "exit 0")
    machine.add_installer("apt-get", "exit 0")
    path = machine.add("chrome")
    assert find_browser.get_browser() == path
    assert machine.calls() == []
    assert capsys.readouterr() == ("", "")


def test_playwright_downloads_before_apt_get_installs(machine, capsys):
    limit = "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT"
    machine.add_installer(
        "playwright", f'[ "${limit}" = 4000 ] || exit 1\n{making(machine.downloaded)}'
    )
    machine.add_installer("apt-get", "exit 0")
    assert find_browser.get_browser() == str(machine.downloaded)
    assert machine.calls() == ["playwright install chromium"]
    message = "no browser for the site tests yet: playwright install chromium\n"
    assert capsys.readouterr() == ("", message)


def test_apt_get_installs_where_the_download_fails(machine):
    chromium = machine.bin / "chromium"
    machine.add_installer("playwright", "echo 'Error: getaddrinfo ENOTFOUND host'; exit 1")
    machine.add_installer("apt-get", f'[ "$1" != install ] || {{ {making(chromium)}\n}}')
    assert find_browser.get_browser() == str(chromium)
    assert machine.calls() == [
        "playwright install chromium",
        "apt-get -o Acquire::http::Timeout=10 update",
        "apt-get install -y --no-install-recommends chromium",
    ]


def test_one_line_says_what_was_tried(machine, monkeypatch):
    machine.add("playwright", "echo Downloading\necho 'Error: no host'\necho '  at node:1'\nexit 1")
    begin = f"no browser: none of {NAMES} on PATH starts; playwright install chromium: "
    assert find_browser.get_browser() == begin + "no host; apt-get: not on this system"
    machine.add_installer(
        "apt-get", "echo Reading...; echo 'E: Unable to locate package'; exit 100"
    )
    assert find_browser.get_browser() == begin + "no host; apt-get: Unable to locate package"
    assert len(machine.calls()) == 2
    monkeypatch.setattr(find_browser.os, "geteuid", lambda: 1000)
    assert find_browser.get_browser() == begin + "no host; apt-get: needs root"
    assert len(machine.calls()) == 2
    machine.add("playwright", "echo Downloading\necho 'killed by something'\nexit 1")
    assert find_browser.get_browser() == begin + "killed by something; apt-get: needs root"
    machine.add("playwright", "exit 3")
    assert find_browser.get_browser() == begin + "exit status 3; apt-get: needs root"
    machine.add("playwright", "exit 0")
    answer = find_browser.get_browser()
    assert answer == begin + "its browser does not start; apt-get: needs root"
    machine.add("playwright", "/bin/sleep 60")
    monkeypatch.setattr(find_browser, "DOWNLOAD_SECONDS", 0.1)
    assert find_browser.get_browser() == begin + "no end after 0.1 s; apt-get: needs root"


def test_nothing_of_a_command_outlives_its_limit(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    script = f"exec 3>{pipe}; echo begun >&3; sleep 60 & wait"
    assert find_browser.run(("/bin/sh", "-c", script), 0.5) == "no end after 0.5 s"
    assert os.read(reader, 100) == b"begun\n"
    # The pipe ends when the shell and its child have closed their side of it.
    assert select.select([reader], [], [], 10)[0] == [reader]
    assert os.read(reader, 100) == b""
    os.close(reader)


def test_the_script_prints_one_line_with_playwrights_own_reason(machine):
    refusing = {"PLAYWRIGHT_DOWNLOAD_HOST": "http://127.0.0.1:1"}
    command = [sys.executable, str(ROOT / "tests" / "browser" / "find_browser.py")]
    done = subprocess.run(
        command, env=os.environ | refusing, capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        f"no browser: none of {NAMES} on PATH starts; playwright install chromium: "
        "connect ECONNREFUSED 127.0.0.1:1; apt-get: not on this system\n"
    )
    chrome = machine.add("chrome")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{chrome}\n", "")


def test_the_answer_of_the_script_reaches_the_tests(machine, monkeypatch):
    chrome = machine.add("chrome")
    assert find_browser.browser_for_tests() == (chrome, "")
    Path(chrome).unlink()
    assert find_browser.browser_for_tests() == (
        None,
        f"no browser: none of {NAMES} on PATH starts, and Playwright has downloaded none; "
        "`make test` tries to get one",
    )
    monkeypatch.setenv(find_browser.VARIABLE, "/opt/browser")
    assert find_browser.browser_for_tests() == ("/opt/browser", "")
    monkeypatch.setenv(find_browser.VARIABLE, "no browser: nothing helped")
    assert find_browser.browser_for_tests() == (None, "no browser: nothing helped")


def test_a_page_opens(open_page, tmp_path):
    (tmp_path / "page.html").write_text("<title>It opens</title>")
    assert open_page(tmp_path / "page.html").title() == "It opens"


def test_without_a_browser_one_line_of_the_summary_has_the_reason():
    files = ["tests/browser/test_hostile_record.py", "tests/browser/test_explorer_in_browser.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    variables = os.environ | {find_browser.VARIABLE: "no browser: nothing helped"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0
    *_, summary, skipped, closing = done.stdout.splitlines()
    assert "short test summary info" in summary
    pattern = r"SKIPPED \[(\d+)\] tests/browser/conftest.py:\d+: no browser: nothing helped"
    count = re.fullmatch(pattern, skipped)[1]
    assert f" passed, {count} skipped in " in closing
