"""Several files are written, or none of them."""

import os

import pytest

from prunebook.catalog.writing import write_together
from prunebook.errors import UserError

TEXTS = {"old.txt": "new text", "folder/new.txt": "another", "last.txt": "the last"}


@pytest.fixture
def folder(tmp_path):
    """A folder with one file that is written anew, and a folder for the others."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.txt").write_text("old text")
    return tmp_path


def snapshot(folder) -> dict:
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


def files(folder, **others) -> dict:
    return {folder / name: text for name, text in {**TEXTS, **others}.items()}


def test_all_files_are_written(folder):
    written = write_together(folder, files(folder))
    assert [str(path) for path in written] == list(TEXTS)
    assert snapshot(folder) == files(folder)


@pytest.mark.parametrize("fails_at", range(len(TEXTS)))
def test_a_failure_while_files_get_their_names_is_undone(folder, monkeypatch, fails_at):
    before = snapshot(folder)
    real = os.replace
    calls = []

    def replace(source, target):
        if str(source).endswith(".new"):
            calls.append(target)
            if len(calls) == fails_at + 1:
                raise OSError(5, "Input/output error", str(source), None, str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError, match=r"^cannot write .*: Input/output error$"):
        write_together(folder, files(folder))
    assert len(calls) == fails_at + 1
    assert snapshot(folder) == before


def test_a_full_disk_changes_nothing(folder, full_disk):
    before = snapshot(folder)
    large = {"large.txt": "x" * 5000}
    with full_disk(3000), pytest.raises(UserError, match=r"^cannot write .*: File too large$"):
        write_together(folder, files(folder, **large))
    assert snapshot(folder) == before


def test_an_interrupt_is_undone_and_goes_on(folder, monkeypatch):
    before = snapshot(folder)
    real = os.replace

    def replace(source, target):
        if str(target).endswith("last.txt") and str(source).endswith(".new"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_together(folder, files(folder))
    assert snapshot(folder) == before
