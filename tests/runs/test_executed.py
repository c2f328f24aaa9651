"""Executed notebooks on disk: which one is published, and which one counts as not executed."""

import json

from tests.runs.reading import outputs, statuses

from prunebook.runs.executed import best_execution, read_execution
from prunebook.runs.notebooks import read_runnables
from prunebook.runs.run import run_notebooks


def test_a_profile_of_its_own_and_the_one_to_publish(book):
    book.add("alpha", "print(model_name)")
    run_notebooks(book.root, ["alpha"], profile="quick")
    run_notebooks(book.root, ["alpha"], profile="full")
    assert outputs(book, "alpha", "full") == "full-model\n"
    (alpha,) = read_runnables(book.root)
    execution, current = best_execution(book.root, alpha)
    assert (execution.profile, current) == ("full", True)
    assert execution.parameters == {"model_name": "full-model"}
    profiles = book.root / "papers" / "profiles.yml"
    profiles.write_text(profiles.read_text().replace("full-model", "other"))
    execution, current = best_execution(book.root, alpha)
    assert (execution.profile, current) == ("quick", True)
    book.add("alpha", "print('changed')")
    execution, current = best_execution(book.root, alpha)
    assert (execution.profile, current) == ("full", False)


def test_a_run_on_another_model_is_not_published(book):
    book.add("alpha", "1")
    profiles = book.root / "papers" / "profiles.yml"
    profiles.write_text(profiles.read_text() + "second: {like: full, default: {}}\n")
    run_notebooks(book.root, ["alpha"], profile="second")
    (alpha,) = read_runnables(book.root)
    assert best_execution(book.root, alpha) is None
    run_notebooks(book.root, ["alpha"], profile="quick")
    assert best_execution(book.root, alpha)[0].profile == "quick"


def test_an_unreadable_key_counts_as_not_executed(book, capsys):
    book.add("alpha", "1")
    (alpha,) = read_runnables(book.root)
    folder = book.root / "_build" / "executed" / "quick"
    folder.mkdir(parents=True)
    (folder / "alpha.ipynb").write_text("{}")
    assert read_execution(book.root, "quick", "alpha") is None
    assert capsys.readouterr().err == ""
    for content in (b"{", b"\xff", b"[]", json.dumps({"key": "x"}).encode()):
        (folder / "alpha.key").write_bytes(content)
        assert read_execution(book.root, "quick", "alpha") is None
        message = f"prunebook: {folder}/alpha.key: not readable, so alpha counts as not executed\n"
        assert capsys.readouterr().err == message
    assert best_execution(book.root, alpha) is None
    assert statuses(run_notebooks(book.root, force=True)) == {"alpha": "ran"}
    assert best_execution(book.root, alpha)[1]
