"""The templates of the four kinds: in order as they are written, and at work once filled in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from tests.tiny_book import make_book

from prunebook.catalog import VOCABULARY, check
from prunebook.catalog.anatomy import cell_faults
from prunebook.catalog.draft import Draft
from prunebook.catalog.placeholders import MARK
from prunebook.catalog.registry import read_registry
from prunebook.catalog.scaffold import new_paper
from prunebook.catalog.templates import KINDS, code_cells, notebook_cells, record_cells

PROJECT = Path(__file__).parents[2]
SLUGS = {
    "score": "my-score",
    "structured": "my-cut",
    "training": "my-training",
    "cache": "my-cache",
}
# What a contributor writes, in the simplest way that does what the paper says: the line of the
# template that asks for it -> what stands there instead.
ANSWERS = {
    "score": {
        'raise NotImplementedError("FILL-IN': "return Score(weight, columns=inputs.norm())",
        'expected = "FILL-IN': "expected = [[1, 0, 3, 0], [4, 3, 0, 0]]",
    },
    "structured": {
        "from ..validation": (
            "from ..passes.sequential import walk\n"
            "from ..validation import check_blocks, check_choices, describe_blocks"
        ),
        'raise NotImplementedError("FILL-IN': (
            "scores = []\n"
            "        for block in walk(model, text, precision=self.precision, progress=progress):\n"
            "            before = block.hidden.clone()\n"
            "            block.propagate()\n"
            "            scores.append((block.hidden - before).norm())\n"
            "        return torch.stack(scores)"
        ),
        'assert remaining == "FILL-IN': "assert remaining == [0, 1, 3]",
    },
    "training": {
        'raise NotImplementedError("FILL-IN': "return keep_mask(weight.abs(), self.target)",
        "# FILL-IN: what the paper adds": "# Nothing is added to the next-token loss.",
        "from ..sparsity.patterns": (
            "from ..sparsity.patterns import Pattern, keep_mask, make_pattern"
        ),
        'expected = "FILL-IN': (
            "expected = [[True, False, False, True], [False, False, True, True]]"
        ),
    },
    "cache": {
        "# FILL-IN: the rule": "# The attention that a token gets is added up, as in H2O.",
        'expected = "FILL-IN': "expected = [[0, 1, 4]]",
    },
}


def draft(kind, index=0, **changes) -> Draft:
    settings = {
        "identifier": f"2403.0385{index}",
        "slug": SLUGS[kind],
        "title": f"{SLUGS[kind]}: A Method That Nobody Has Published",
        "authors": ["Xin Men", "Mingyu Xu", "Qingyu Zhang"],
        "year": 2025,
        "venue": "ACL",
        "venue_kind": "conference",
        "short": None,
        "tags": {},
    }
    return Draft(**{**settings, **changes})


def ruff(folder, *command):
    """Run ruff with the project's settings."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        [shutil.which("ruff", path=path), *command], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def answer(text, answers) -> str:
    """The text of a source or test with each answer in the place of the line that asks for it."""
    lines = []
    for line in text.splitlines():
        for question, written in answers.items():
            if line.lstrip().startswith(question):
                line = line[: len(line) - len(line.lstrip())] + written
        lines.append(line.replace(f"{MARK}: ", ""))
    return "\n".join(lines) + "\n"


def answer_page(path) -> None:
    """Fill in a notebook: the text that asks stands for the answer."""
    content = nbformat.read(path, as_version=4)
    front = yaml.safe_load(content.cells[0].source.strip("-\n"))
    front["paper"] |= {"code": None, "takeaway": "It prunes, at a cost."}
    for facet, entry in front["paper"]["tags"].items():
        entry["values"] = [VOCABULARY[facet][0]]
    text = yaml.safe_dump(front, sort_keys=False)
    content.cells[0].source = text.replace(f"{MARK}: ", "").replace(f"{MARK}:\n", "\n")
    for cell in content.cells[1:]:
        cell.source = cell.source.replace(f"{MARK}: ", "")
    path.write_text(nbformat.writes(content) + "\n")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A book with this library, and a paper of each kind whose places are filled in."""
    root = make_book(tmp_path_factory.mktemp("clone") / "book")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "lib", root / "lib", dirs_exist_ok=True, ignore=ignore)
    (root / "tests/caches").mkdir()
    for file in ("pyproject.toml", "tests/conftest.py", "tests/caches/conftest.py"):
        shutil.copyfile(PROJECT / file, root / file)
    shutil.copytree(PROJECT / "concepts", root / "concepts")
    shutil.copyfile(PROJECT / "tests/catalog/template_pages.py", root / "tests/test_pages.py")
    for index, kind in enumerate(KINDS):
        notebook, _, *code = new_paper(root, draft(kind, index), kind)
        answer_page(root / notebook)
        for file in code[:2]:
            (root / file).write_text(answer((root / file).read_text(), ANSWERS[kind]))
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_a_filled_in_paper_breaks_no_rule(clone, kind):
    assert [str(problem) for problem in check(clone, [SLUGS[kind]])] == []


@pytest.mark.parametrize("kind", KINDS)
def test_filled_in_files_are_in_order_for_ruff(clone, kind):
    files = [f"papers/{SLUGS[kind]}.ipynb", *map(str, read_registry(clone)[SLUGS[kind]][1:])]
    ruff(clone, "check", *files)
    ruff(clone, "format", "--check", *files)


def test_filled_in_methods_pass_their_tests_and_their_pages_run(clone):
    environment = {**os.environ, "PYTHONPATH": str(clone / "lib"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = [str(read_registry(clone)[slug].test) for slug in SLUGS.values()]
    done = subprocess.run(
        [*command, "tests/test_pages.py", *tests],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr


LONG = (
    "On the Very Surprising and Perhaps Unreasonable Effectiveness of an Extremely Long Title "
    "that Has No Colon" * 2
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("X: Layers", "x"),
        (LONG, "a-slug-of-many-long-words"),
        ('A "quoted" title \\ with """ quotes', "quotes"),
    ],
)
def test_what_is_generated_is_in_order_for_ruff(tmp_path, kind, title, slug):
    book = make_book(tmp_path / "book")
    (book / "lib/prunebook/caches").mkdir()
    (book / "tests/caches").mkdir()
    (book / "lib/prunebook/caches/registry.py").write_text(
        'REGISTRY = {\n    "a": ("a", "A"),\n}\n'
    )
    written = new_paper(book, draft(kind, title=title, slug=slug), kind)
    (book / "ruff.toml").write_text(
        f'extend = "{PROJECT}/pyproject.toml"\n[lint.isort]\nknown-first-party = ["prunebook"]\n'
    )
    files = [str(path) for path in written if path.suffix != ".yml"]
    ruff(book, "check", *files)
    ruff(book, "format", "--check", *files)


def test_the_notebooks_share_their_anatomy():
    page = [name for name in notebook_cells("score") if not name.endswith("heading")]
    for kind in KINDS:
        cells = notebook_cells(kind)
        assert list(cells) == list(notebook_cells("score"))
        whole = nbformat.v4.new_notebook(cells=list(cells.values()))
        assert list(cell_faults(whole, True)) == []
        assert {**record_cells(), **code_cells(kind)}.keys() == cells.keys()
    assert page[:4] == ["record", "title", "method", "parameters"]
    assert page[-3:] == ["challenge", "errata", "see-also"]
