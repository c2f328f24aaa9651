"""Whole or not at all."""

import os

import pytest

from prunebook.errors import UserError
from prunebook.files import atomic_folder, cache_folder, write_atomic


def names(folder):
    return sorted(os.listdir(folder))


def test_text_and_bytes_are_written_and_replaced(tmp_path):
    target = tmp_path / "new" / "folder" / "file"
    assert write_atomic(target, "grüße") == target
    assert target.read_bytes() == "grüße".encode()
    write_atomic(str(target), b"\0\1")
    assert target.read_bytes() == b"\0\1"
    assert names(target.parent) == ["file"]
    assert target.stat().st_mode & 0o777 == 0o644


def test_a_full_disk_leaves_the_old_file(tmp_path, full_disk):
    target = write_atomic(tmp_path / "file", "old")
    with full_disk(4096), pytest.raises(UserError, match=f"cannot write {target}: File too large"):
        write_atomic(target, "x" * 5000)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_parent_that_is_a_file_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_atomic(tmp_path / "file" / "below", "x")
    with pytest.raises(UserError, match="cannot write"), atomic_folder(tmp_path / "file" / "below"):
        pass


def test_a_folder_appears_when_it_is_whole_and_replaces_the_old_one(tmp_path):
    target = tmp_path / "deep" / "folder"
    for content in ("first", "second"):
        with atomic_folder(target) as temporary:
            (temporary / content).write_text(content)
            assert not (target / content).exists()
        assert names(target) == [content]
    assert names(target.parent) == ["folder"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_an_error_keeps_the_old_folder(tmp_path):
    target = tmp_path / "folder"
    with atomic_folder(target) as temporary:
        (temporary / "old").write_text("")

    def fail_half_way():
        with atomic_folder(target) as temporary:
            (temporary / "new").write_text("")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail_half_way()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_a_full_disk_keeps_the_old_folder(tmp_path, full_disk):
    target = tmp_path / "folder"
    with atomic_folder(target) as temporary:
        (temporary / "old").write_text("")
    refused = pytest.raises(UserError, match=f"cannot write {target}: File too large")
    with full_disk(4096), refused, atomic_folder(target) as temporary:
        (temporary / "new").write_bytes(b"x" * 5000)
    assert names(target) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    target = tmp_path / "folder"
    with atomic_folder(target) as temporary:
        (temporary / "old").write_text("")
    replace = os.replace

    def fail_for_the_new_one(source, destination):
        if (source / "new").exists():
            raise OSError(5, "Input/output error")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fail_for_the_new_one)
    with pytest.raises(UserError, match="Input/output error"), atomic_folder(target) as temporary:
        (temporary / "new").write_text("")
    assert names(target) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_the_cache_folder_follows_its_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("PRUNEBOOK_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("PRUNEBOOK_CACHE")
    assert cache_folder().name == "prunebook"
