"""The command by the name of its package."""

import subprocess
import sys

from prunebook import __version__


def test_the_package_runs_as_the_command(book):
    def run(*arguments):
        command = [sys.executable, "-m", "prunebook.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=book, timeout=60)

    assert run("--version").stdout == f"prunebook, version {__version__}\n"
    assert run("--help").stdout.startswith("Usage: prunebook [OPTIONS] COMMAND")
    refused = run("show", "wander")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "prunebook: unknown paper 'wander'; allowed: scaling, wanda\n"
