"""Where the time of a page goes: the clock by hand, and tiny pages in processes of their own."""

import importlib.util
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tests.small_book import SHOWN, SmallBook

from prunebook.errors import UserError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pages.py"
spec = importlib.util.spec_from_file_location("benchmarks.pages", SCRIPT)
pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pages)

# Every name below is imported and called in the same cell.
CALLS = """\
import copy

import torch

import prunebook as pb
from prunebook.experiments import compare  # brings in quality, and has imported a name from it
from prunebook import blocks, patterns
from prunebook.measure.quality import measure_quality
from prunebook.models.loading import load_model

assert (model_name, samples) == ("ours", 2)
assert compare.measure_quality is pb.evaluate.measure_quality is measure_quality
layer = torch.nn.Linear(8, 8)
for _ in range(3):
    copy.deepcopy(layer)
copy.deepcopy([layer])
copy.deepcopy(layer, {})
patterns.keep_mask(torch.rand(4, 4), patterns.Unstructured(0.5))
for call in (lambda: load_model(classes=1), lambda: next(blocks.walk(None, None))):
    try:
        call()
    except (pb.UserError, AttributeError):
        pass
pb.show_source(measure_quality)
"""
MEMORY = """\
from prunebook.measure.memory import peak_memory

held = b"x" * 2**29
del held
with peak_memory(torch.device("cpu")):
    pass
"""


@pytest.fixture
def now(monkeypatch):
    """The time that a clock reads, to be set by hand."""
    found = SimpleNamespace(seconds=0)
    monkeypatch.setattr(pages, "time", SimpleNamespace(perf_counter=lambda: found.seconds))
    return found


@pytest.fixture
def book(tmp_path):
    made = SmallBook(tmp_path)
    profiles = {"small": {"default": {"model_name": "ours", "samples": 2}}}
    (tmp_path / "papers" / "profiles.yml").write_text(yaml.safe_dump(profiles))
    return made


def run(book, *arguments):
    """The rows of the record afterwards, by name."""
    out = book.root / "pages.json"
    pages.main([*arguments, "--profile", "small", "--root", str(book.root), "--out", str(out)])
    return {row["name"]: row for row in json.loads(out.read_text())["rows"]}


def test_an_inner_label_takes_its_time_off_the_outer_one(now):
    clock = pages.Clock()
    clock.category |= {"outer": "pruning", "inner": "measuring"}
    now.seconds = 1
    assert clock.enter("outer")
    now.seconds = 3
    assert clock.enter("inner")
    assert not clock.enter("outer", outermost=True)
    now.seconds = 7
    clock.leave()
    now.seconds = 8
    clock.leave()
    now.seconds = 10
    assert clock.categories() == {"other": 3, "pruning": 3, "measuring": 4}
    assert clock.functions() == {
        "pruning": {"outer": 3},
        "measuring": {"inner": 4},
        "other": {"page": 3},
    }
    assert clock.calls == {"outer": 1, "inner": 1}


def test_another_thread_is_not_charged(now):
    clock = pages.Clock()
    entered = []
    thread = threading.Thread(target=lambda: entered.append(clock.enter("outer")))
    thread.start()
    thread.join()
    assert entered == [False]


def test_of_a_generator_its_steps_are_timed_and_it_is_closed(now):
    closed = []

    def steps():
        try:
            for step in range(9):
                now.seconds += 2
                yield step
        finally:
            closed.append(True)

    clock = pages.Clock()
    for step in pages.Instruments(clock)._timed(steps, "steps", "pruning")():
        now.seconds += 5
        if step == 2:
            break
    assert clock.categories() == {"pruning": 6, "other": 15}
    assert closed == [True]


PROFILE_AND_CACHE = """\
assert os.environ["PRUNEBOOK_PROFILE"] == "small"
kept = sorted(os.listdir(os.environ["PRUNEBOOK_CACHE"]))
assert kept == ["articles", "baselines", "models", "tokens"]
"""


def test_functions_are_timed_wherever_they_are_imported(book):
    """One page, because a process that imports torch takes seconds."""
    book.add("alpha", CALLS, MEMORY, SHOWN)
    row = run(book)["alpha"]
    assert row["calls"] == {
        "copy.deepcopy": 3,
        "sparsity.patterns.keep_mask": 1,
        "models.loading.load_model": 1,
        "passes.sequential.walk": 1,
        "notebook.source.show_source": 1,
        "notebook.results.results": 1,
        "matplotlib.pyplot.figure": 1,
        "matplotlib_inline.backend_inline.show": 2,  # the page's, and that at the end of the cell
        "matplotlib.backend_bases.FigureCanvasBase.print_figure": 1,
        "matplotlib.figure.Figure.draw": 2,
        "matplotlib.pyplot.close": 1,
    }
    assert [cell["cell"] for cell in row["cells"]] == [3, 4, 5, 6]
    assert row["cells"][1]["line"] == "import copy"
    assert {"import torch", "import prunebook"} <= row["functions"]["imports"].keys()
    assert list(row["functions"]["process"]) == ["start", "end"]
    assert row["peak_memory"] > 2**29
    assert sum(row["categories"].values()) == pytest.approx(row["seconds"], abs=0.01)
    assert row["parameters"] == {"model_name": "ours", "samples": 2}


def test_what_is_done_is_kept_and_what_fails_is_tried_again(book, capsys):
    book.add("alpha", "import os", PROFILE_AND_CACHE)
    book.add("broken", "print('before')", "raise KeyError('no way')")
    book.add("dead", "import os\nos._exit(3)")
    book.add("later", "1 / 0", method=None)
    with pytest.raises(SystemExit, match=r"^benchmarks.pages: not measured: broken, dead$"):
        run(book)
    shown = capsys.readouterr().out
    assert "[1/3] alpha: expected unknown; 0 s so far, unknown to go\n" in shown
    assert "[2/3] broken: failed, cell 5: KeyError: 'no way'\n" in shown
    assert "[3/3] dead: failed, the process ended with code 3; its last line:" in shown
    before = json.loads((book.root / "pages.json").read_text())
    assert [row["name"] for row in before["rows"]] == ["alpha"]
    assert before["profile"] == "small"
    assert before["machine"].keys() == {"cpu", "cores", "threads"}

    book.add("broken", "print('mended')")
    rows = run(book, "alpha", "broken")
    assert list(rows) == ["alpha", "broken"]
    assert rows["alpha"] == before["rows"][0]
    assert "[1/1] broken: expected " in capsys.readouterr().out

    run(book, "alpha")
    assert capsys.readouterr().out.startswith("\n| page | total | process | imports | loading |")
    run(book, "alpha", "--force")
    assert "[1/1] alpha: expected " in capsys.readouterr().out


def test_what_cannot_be_measured_is_refused_in_one_line(book, tmp_path, monkeypatch):
    book.add("alpha", "print('fine')")
    with pytest.raises(
        SystemExit, match=r"^benchmarks.pages: unknown page 'beta'; allowed: alpha$"
    ):
        run(book, "beta")
    out = tmp_path / "pages.json"
    out.write_text('{"rows": []}')
    with pytest.raises(SystemExit, match=r"is no record of pages \(KeyError\('kind'\)\)"):
        run(book)
    out.unlink()
    monkeypatch.setattr(pages, "machine", dict)
    out.write_text(json.dumps(pages.read_record(out, "large")))
    with pytest.raises(SystemExit, match=r"has profile 'large', not 'small'; give another --out$"):
        run(book)


def test_the_tables_name_what_the_library_has(monkeypatch):
    pages.check_tables()
    monkeypatch.setattr(pages, "STEPS", {"dense": ("prunebook.measure.quality:measured",)})
    message = r"^the library has no prunebook.measure.quality:measured; mend"
    with pytest.raises(UserError, match=message):
        pages.check_tables()


def test_the_table_has_sums_and_shares(monkeypatch):
    monkeypatch.setattr(pages, "CATEGORIES", {"imports": "", "other": ""})
    rows = [
        {"name": "alpha", "seconds": 4.0, "categories": {"imports": 1.0, "other": 3.0}},
        {"name": "beta", "seconds": 6.0, "categories": {"other": 6.0}},
    ]
    assert pages.table(rows).splitlines() == [
        "| page | total | imports | other |",
        "|---|--:|--:|--:|",
        "| alpha | 4.0 | 1.0 | 3.0 |",
        "| beta | 6.0 | 0.0 | 6.0 |",
        "| **all** | 10.0 | 1.0 | 9.0 |",
        "| **share** | 100 % | 10.0% | 90.0% |",
    ]


def test_unknown_pages_are_expected_to_take_the_mean():
    assert pages.expected(["alpha"], {}) == "unknown"
    assert pages.expected(["alpha", "beta"], {"alpha": 60.0, "gamma": 90.0}) == "2.2 min"
    assert pages.expected(["alpha"], {"alpha": 60.0}) == "60 s"
