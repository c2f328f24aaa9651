"""What `make` does: its commands, the Pythons it takes, and where torch comes from; no network."""

import contextlib
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
OLD_PYTHON = f"""\
#!/bin/sh
exec {sys.executable} -c '
import runpy, sys
sys.version_info = (3, 10, 4)
runpy.run_path(sys.argv[1], run_name="__main__")
' "$@"
"""


def load(name):
    """The script `requirements/<name>.py` as a module of its own."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "requirements" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_command(folder, name, body="exit 0"):
    """An executable shell script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


# the commands


def make(*arguments):
    """What `make` prints and its status, without the variables of a `make` that runs the tests."""
    variables = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def ready(tmp_path):
    """The stamp of an environment that is newer than what it is made from."""
    stamp = tmp_path / "venv" / ".ready"
    stamp.parent.mkdir()
    stamp.touch()
    return stamp


def commands(ready, *arguments):
    """What `make` would run, a command each, the environment's folder left out."""
    printed = make("-n", f"VENV={ready.parent}", *arguments)
    assert printed.returncode == 0, printed.stderr
    text = printed.stdout.replace("\\\n", " ").replace(f"{ready.parent}/", "")
    return [" ".join(line.split()) for line in text.splitlines()]


def test_an_environment_that_is_up_to_date_costs_no_command(ready):
    assert commands(ready, "env") == ["make: Nothing to be done for 'env'."]


def test_the_book_is_the_quick_profile_unless_another_is_named(ready):
    build = "bin/prunebook build"
    assert commands(ready, "book") == ["bin/prunebook run --profile quick", build]
    assert commands(ready) == commands(ready, "book")
    assert commands(ready, "book", "PROFILE=book", "JOBS=2") == [
        "bin/prunebook run --profile book --jobs 2",
        build,
    ]


def test_the_tests_begin_with_lint_and_a_browser(ready):
    assert commands(ready, "test")[-1] == (
        'browser="$(bin/python tests/browser/find_browser.py)" && '
        'PRUNEBOOK_BROWSER="$browser" OMP_NUM_THREADS=1 '
        "bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder"
    )
    assert commands(ready, "test")[:-1] == commands(ready, "lint")


@pytest.mark.parametrize(
    "source",
    [
        "pyproject.toml",
        "requirements/constraints.txt",
        "requirements/embedded.txt",
        "requirements/triton.txt",
    ],
)
def test_the_environment_is_made_anew_when_its_sources_change(ready, source):
    before = (ROOT / source).stat().st_mtime - 1
    os.utime(ready, (before, before))
    made = commands(ready, "env")
    assert made[0] == "python3 requirements/python_version.py"
    assert made[-1].startswith("touch ")


def test_continuous_integration_runs_the_two_commands():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^(?!#|set |cd ).+$", script, re.MULTILINE) == ["make book", "make test"]


# the Pythons


def test_the_pythons_of_the_environment():
    python = load("python_version")
    for version in ((3, 11), (3, 12), (3, 13)):
        assert python.too_old(version) is None
        assert python.too_new(version) is None
    assert python.too_old((3, 10)) == (
        "Python 3.10 is too old, 3.11 to 3.13 will do: make PYTHON=python3.12"
    )
    assert python.too_new((3, 14)) == (
        "Python 3.14 is newer than the pinned packages know (3.11 to 3.13); "
        "if pip fails: make PYTHON=python3.13"
    )


def test_an_old_python_is_refused_in_one_line_before_anything_is_made(tmp_path):
    old = tmp_path / "python3"
    old.write_text(OLD_PYTHON)
    old.chmod(0o755)
    refused = make("env", f"VENV={tmp_path / 'venv'}", f"PYTHON={old}")
    assert refused.returncode == 2
    message, failure = refused.stderr.splitlines()
    assert message == "Python 3.10 is too old, 3.11 to 3.13 will do: make PYTHON=python3.12"
    assert failure.startswith("make: ***")
    assert not (tmp_path / "venv").exists()


def test_every_dependency_is_pinned_to_a_version_that_it_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = chain.from_iterable(project["optional-dependencies"].values())
    required = [Requirement(text) for text in [*project["dependencies"], *optional]]
    pins = {}
    for line in (ROOT / "requirements/constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            pin = Requirement(line.split("  #")[0])
            (version,) = re.fullmatch("==(.+)", str(pin.specifier)).groups()
            pins[canonicalize_name(pin.name)] = version
    for requirement in required:
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


# where torch comes from


class Index:
    """A package index on this machine that writes down what it is asked.

    It answers with `status` after `delay` seconds, or when it closes.
    """

    def __init__(self, status=200, delay=0):
        self.status = status
        self.delay = delay
        self.asked = []
        self.closes = threading.Event()

    @contextlib.contextmanager
    def serve(self):
        """The index's address, for as long as it answers."""
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                index.asked.append(self.path)
                index.closes.wait(index.delay)
                self.send_response(index.status)
                self.end_headers()

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
            finally:
                self.closes.set()
                server.shutdown()


@pytest.fixture
def torch_index(tmp_path, monkeypatch):
    """The script on a Linux machine without GPU, commands or settings of pip."""
    module = load("torch_index")
    monkeypatch.setattr(module, "GPU_DEVICE", tmp_path / "nvidiactl")
    monkeypatch.setattr(module.sys, "platform", "linux")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return module


def test_an_index_that_answers_is_taken(torch_index, capsys):
    index = Index()
    with index.serve() as address:
        torch_index.main(address)
    assert capsys.readouterr() == (f"--extra-index-url {address}\n", "")
    assert index.asked == ["/whl/cpu/torch/"]


def test_an_index_that_answers_too_slowly_is_left(torch_index, capsys, monkeypatch):
    assert torch_index.PROBE_SECONDS == 2
    monkeypatch.setattr(torch_index, "PROBE_SECONDS", 0.2)
    with Index(delay=10).serve() as address:
        torch_index.main(address)
        message = f"{address} does not answer: torch comes from the default index\n"
        assert capsys.readouterr() == ("", message)


def test_an_index_that_fails_or_refuses_is_left(torch_index, capsys):
    index = Index(status=404)
    with index.serve() as address:
        torch_index.main(address)
    message = f"{address} does not answer: torch comes from the default index\n"
    assert capsys.readouterr() == ("", message)
    assert index.asked == ["/whl/cpu/torch/"]
    torch_index.main(address)  # nobody listens there any more
    assert capsys.readouterr() == ("", message)
    assert index.asked == ["/whl/cpu/torch/"]


def test_a_gpu_wants_the_default_build(torch_index, capsys, tmp_path):
    index = Index()
    with index.serve() as address:
        write_command(tmp_path / "bin", "nvidia-smi", "exit 9")  # installed, but no driver
        torch_index.main(address)
        assert capsys.readouterr().out == f"--extra-index-url {address}\n"
        write_command(tmp_path / "bin", "nvidia-smi")
        torch_index.main(address)
        (tmp_path / "bin" / "nvidia-smi").unlink()
        (tmp_path / "nvidiactl").touch()
        torch_index.main(address)
    assert capsys.readouterr() == ("", "")
    assert index.asked == ["/whl/cpu/torch/"]


@pytest.mark.parametrize("setting", ["index-url", "extra-index-url", "find-links"])
def test_indexes_that_pip_has_been_given_stay_the_only_ones(
    torch_index, capsys, tmp_path, monkeypatch, setting
):
    index = Index()
    with index.serve() as address:
        with monkeypatch.context() as patch:
            patch.setenv(f"PIP_{setting.upper().replace('-', '_')}", "/wheels")
            torch_index.main(address)
        configuration = tmp_path / "pip.conf"
        configuration.write_text(f"[install]\n{setting} = /wheels\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
        torch_index.main(address)
        assert capsys.readouterr() == ("", "")
        assert index.asked == []
        configuration.write_text("[install]\ntimeout = 60\n")
        torch_index.main(address)
        assert capsys.readouterr() == (f"--extra-index-url {address}\n", "")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_have_cpu_builds_by_default(torch_index, capsys, monkeypatch, platform):
    index = Index()
    monkeypatch.setattr(torch_index.sys, "platform", platform)
    with index.serve() as address:
        torch_index.main(address)
    assert capsys.readouterr() == ("", "")
    assert index.asked == []
