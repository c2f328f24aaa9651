"""What the process of a notebook reports: its cells, its failure in short texts, one line each."""

import json
import os
import subprocess
import sys

import nbformat
import pytest

from prunebook.runs.execute import channel_to


def test_a_failing_cell_is_told_with_the_line_that_failed(shared_workers, run):
    ended, _, _ = run(shared_workers, "# it fails\nraise ValueError('no\\nway')")
    assert ended.failure == {
        "cell": 0,
        "line": "raise ValueError('no\\nway')",
        "error": "ValueError",
        "message": "no",
    }


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("\n\nx = 1\nif x:\n    assert x == 2\n", "assert x == 2"),
        # What fails in a function is told by the line of the page that calls it.
        ("def f(x):\n    assert x == 2\n\n\nf(2)\nf(1)", "f(1)"),
        ("import json\njson.loads('{')", "json.loads('{')"),
    ],
)
def test_the_line_is_that_of_the_cell(shared_workers, run, code, line):
    ended, _, _ = run(shared_workers, code)
    assert ended.failure["line"] == line


def test_without_a_place_in_the_traceback_the_first_line_is_told(shared_workers, run):
    ended, _, _ = run(shared_workers, "# it ends\nimport os\nos._exit(1)")
    assert ended.failure["line"] == "# it ends"


def test_a_long_message_is_cut_so_that_its_report_stays_whole(shared_workers, run):
    ended, _, _ = run(shared_workers, "raise ValueError('\\U0001d54f' * 100_000)")
    assert ended.failure["message"] == "\U0001d54f" * 100


def test_a_channel_takes_one_line_of_json_at_a_time():
    reading, writing = os.pipe()
    report = channel_to(writing, 7)
    report(cell=3)
    report(failure={"message": "µ\n"})
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"job": 7, "cell": 3},
        {"job": 7, "failure": {"message": "µ\n"}},
    ]


def test_a_job_on_standard_input_has_a_kernel_started_from_nothing(tmp_path):
    """The way of systems that do not fork: parameters, two cells, and the failure of the last."""
    v4 = nbformat.v4
    tagged = v4.new_code_cell("samples = 1", metadata={"tags": ["parameters"]})
    cells = [tagged, v4.new_code_cell("print(samples)\nraise KeyError('no')")]
    (tmp_path / "page.ipynb").write_text(nbformat.writes(v4.new_notebook(cells=cells)))
    job = {
        "job": 2,
        "input": "page.ipynb",
        "output": "out.ipynb",
        "parameters": {"samples": 5},
        "cwd": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "prunebook.runs.execute"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    *cells_done, last = map(json.loads, done.stdout.splitlines())
    assert cells_done == [{"job": 2, "cell": cell} for cell in (1, 2, 3)]  # one is the parameters'
    failure = {"cell": 1, "line": "raise KeyError('no')", "error": "KeyError", "message": "'no'"}
    assert last == {"job": 2, "failure": failure}
    outputs = nbformat.read(tmp_path / "out.ipynb", 4).cells[-1].outputs
    assert outputs[0].text == "5\n"
