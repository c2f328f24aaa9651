"""Pages that the changes since a revision reach, in a small repository."""

import shutil
import subprocess

import pytest
from tests.runs.reading import statuses

from prunebook.catalog.source_graph import PACKAGE
from prunebook.errors import UserError
from prunebook.runs.run import run_notebooks


def test_only_pages_that_changes_since_a_revision_reach(book):
    book.add("alpha", "import prunebook.errors", year=2026)
    book.add("beta", "1", year=2025)
    (book.root / "lib").symlink_to(PACKAGE.parent)
    with pytest.raises(UserError, match=r"git says: .*; give a revision of"):
        run_notebooks(book.root, since="HEAD")
    (book.root / "lib").unlink()
    shutil.copytree(
        PACKAGE, book.root / "lib" / "prunebook", ignore=shutil.ignore_patterns("__pycache__")
    )
    git = ["git", "-C", str(book.root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    assert statuses(run_notebooks(book.root, since="HEAD")) == {
        "alpha": "as in HEAD",
        "beta": "as in HEAD",
    }
    book.add("beta", "2", year=2025)
    assert statuses(run_notebooks(book.root, since="HEAD")) == {
        "alpha": "as in HEAD",
        "beta": "ran",
    }
    subprocess.run([*git, "commit", "-qam", "second"], check=True)
    errors = book.root / "lib" / "prunebook" / "errors.py"
    errors.write_text(errors.read_text() + "# changed\n")
    subprocess.run([*git, "commit", "-qam", "third"], check=True)
    # The library that runs is the first one; at HEAD it is another, which only alpha reaches.
    assert statuses(run_notebooks(book.root, since="HEAD")) == {
        "alpha": "ran",
        "beta": "as in HEAD",
    }
    with pytest.raises(UserError, match=r"git says: .*no-such.*; give a revision of"):
        run_notebooks(book.root, since="no-such")
