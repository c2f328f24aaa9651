"""Results in the cache: made once, shared, and made again where they are missing or damaged."""

import multiprocessing
import time

import pytest

from prunebook.errors import UserError
from prunebook.files import cached, file_digest, find, keep


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

    assert find("texts", ["a"], read) is None
    keep("texts", ["a"], lambda folder: (folder / "text").write_text("one"))
    assert find("texts", ["a"], read) == "one"
    assert find("texts", ["b"], read) is None
    (_folder(cache) / "text").write_text("two")
    assert find("texts", ["a"], read) is None
    keep("texts", ["a"], lambda folder: (folder / "text").write_text("three"))
    assert find("texts", ["a"], read) == "three"


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
