"""When a source last changed, from the repository's history."""

import subprocess
from pathlib import Path


def changed_dates(root: Path) -> dict[str, str]:
    """Path under `root` -> day of the last commit that touched it, `YYYY-MM-DD`.

    Empty where there is no history to tell: outside a repository, without git, in a shallow clone.
    """
    try:
        if _git(root, "rev-parse", "--is-shallow-repository").strip() != "false":
            return {}
        log = _git(root, "log", "--relative", "--format=%x00%cs", "--name-only", "--no-renames")
    except (OSError, subprocess.CalledProcessError):
        return {}
    dates = {}
    day = ""
    for line in filter(None, log.splitlines()):
        if line.startswith("\0"):
            day = line[1:]
        else:
            dates.setdefault(line, day)
    return dates


def head_commit(root: Path) -> str | None:
    """The commit that the repository around `root` stands at.

    None outside a repository or without git.
    """
    try:
        return _git(root, "rev-parse", "HEAD").strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", root, "-c", "core.quotePath=off", *arguments],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
