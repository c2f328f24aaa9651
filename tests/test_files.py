"""Files written whole or not at all, and cached results, made again where missing or damaged."""

import multiprocessing
import os
import time

import pytest

from prunebook.errors import UserError
from prunebook.files import (
    atomic_folder,
    cache_folder,
    cached,
    file_digest,
    find_cached,
    keep_cached,
    write_atomic,
)


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


def text_of(identity, calls, text="made"):
    """A cached text; `calls` grows each time that it is made."""

    def write(folder):
        calls.append(identity)
        (folder / "text").write_text(text)

    return cached("texts", identity, write, lambda folder: (folder / "text").read_text())


def test_a_result_is_made_once_for_each_identity(cache):
    calls = []
    assert [text_of(["a", b"b"], calls) for _ in range(3)] == ["made"] * 3
    assert text_of(["ab", b""], calls, "other") == "other"  # parts are told apart by their lengths
    assert calls == [["a", b"b"], ["ab", b""]]


def _folder(cache):
    (folder,) = [path for path in (cache / "texts").iterdir() if path.is_dir()]
    return folder


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "text").write_text("Made"),
        lambda folder: (folder / "text").write_text(""),
        lambda folder: (folder / "text").unlink(),
        lambda folder: (folder / "sha256.json").unlink(),
        lambda folder: (folder / "sha256.json").write_text("{"),
        lambda folder: (folder / "sha256.json").write_text("[1]"),
        lambda folder: (folder / "sha256.json").write_bytes(b"\xff"),
    ],
)
def test_a_damaged_result_is_made_again_and_told(cache, capsys, damage):
    calls = []
    text_of(["a"], calls)
    assert capsys.readouterr().err == ""
    folder = _folder(cache)
    damage(folder)
    assert text_of(["a"], calls) == "made"
    assert len(calls) == 2
    said = f"prunebook: cached texts {folder.name}: damaged, made again\n"
    assert capsys.readouterr().err == said
    assert text_of(["a"], calls) == "made"
    assert len(calls) == 2


def test_a_result_at_hand_is_kept_and_found(cache):
    def read(folder):
        return (folder / "text").read_text()

    assert find_cached("texts", ["a"], read) is None
    keep_cached("texts", ["a"], lambda folder: (folder / "text").write_text("one"))
    assert find_cached("texts", ["a"], read) == "one"
    assert find_cached("texts", ["b"], read) is None
    (_folder(cache) / "text").write_text("two")
    assert find_cached("texts", ["a"], read) is None
    keep_cached("texts", ["a"], lambda folder: (folder / "text").write_text("three"))
    assert find_cached("texts", ["a"], read) == "three"


def test_what_fails_while_it_is_made_leaves_nothing(cache):
    def write(folder):
        (folder / "text").write_text("half")
        raise KeyError("no")

    with pytest.raises(KeyError):
        cached("texts", ["a"], write, lambda folder: None)
    assert [path for path in (cache / "texts").iterdir() if path.is_dir()] == []


def test_a_full_disk_is_one_line(cache, full_disk):
    (cache / "texts").mkdir(parents=True)
    with full_disk(2000), pytest.raises(UserError, match=r"cannot write .*texts"):
        text_of(["a"], [], "x" * 5000)


def _make_slowly(marks):
    def write(folder):
        marks.append(1)
        time.sleep(0.5)
        (folder / "text").write_text("made")

    cached("texts", ["a"], write, lambda folder: None)


def test_two_processes_make_it_once(cache):
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        marks = manager.list()
        processes = [context.Process(target=_make_slowly, args=(marks,)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert list(marks) == [1]


def test_the_digest_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(path) == known
