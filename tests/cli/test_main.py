"""The command as a whole: its version, its errors, what it does not import."""

import subprocess
import sys

import pytest
from click.testing import CliRunner
from tests.cli.calling import call, error
from tests.tiny_book import record, write

from prunebook import __version__
from prunebook.cli.main import main
from prunebook.errors import UserError


def test_version():
    assert call("--version").stdout.endswith(f"version {__version__}\n")


def test_outside_a_book(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["list"], ["show", "wanda"], ["check"]):
        assert error(*command).startswith(f"prunebook: no book at {tmp_path} or above it")


def test_a_broken_notebook_is_one_line_or_a_traceback(book):
    write(book, record(year=24))
    line = "papers/wanda.ipynb: paper.year: 24 must be greater than or equal to 1980"
    assert error("list") == f"prunebook: {line}"
    result = CliRunner().invoke(main, ["--debug", "list"])
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == line


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["show"],
        ["prune", "smollm2-135m"],
        ["prune", "smollm2-135m", "wanda", "--sparsity", "half"],
        ["eval"],
        ["eval", "smollm2-135m", "--length", "long"],
        ["run", "--jobs", "0"],
        ["new", "2403.03853"],
        ["new", "2403.03853", "--slug", "a", "--year", "soon"],
        ["new", "2403.03853", "--slug", "a", "--kind", "poster"],
        ["serve", "--port", "0"],
    ],
)
def test_usage_errors_have_exit_code_2(arguments):
    assert "Error: " in call(*arguments, code=2).stderr


def test_reading_commands_import_no_torch(book):
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom prunebook.cli.main import main\n"
        "adding = ['add-method', 'scaling', '--kind', 'score']\n"
        "commands = ['list'], ['show', 'wanda'], ['check'], adding\n"
        "codes = [CliRunner().invoke(main, command).exit_code for command in commands]\n"
        "print(codes, sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=book
    )
    assert done.stdout == "[0, 0, 0, 0] []\n"
