"""New papers and methods from the template: complete, in their places, all files or none."""

import ast
import datetime
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from tests.tiny_book import REGISTRY, other_record, write

from prunebook.catalog import VOCABULARY, check, read_paper
from prunebook.catalog.contents import listed_papers, with_paper
from prunebook.catalog.draft import Draft
from prunebook.catalog.placeholders import MARK
from prunebook.catalog.registry import method_names, with_method
from prunebook.catalog.scaffold import add_method, check_new, new_paper
from prunebook.errors import UserError

PROJECT = Path(__file__).parents[2]
TAGS = {
    "type": ["Unstructured", "Semi-structured"],
    "criteria": ["Other"],
    "budget": ["Sparsity"],
    "data": ["Calibration"],
    "retrain": ["Without"],
    "weight": ["Frozen"],
}


def draft(**changes) -> Draft:
    settings = {
        "identifier": "2403.03853",
        "slug": "short-gpt",
        "title": "ShortGPT: Layers are Redundant",
        "authors": ["Xin Men", "Mingyu Xu", "Qingyu Zhang"],
        "year": 2025,
        "venue": "ACL",
        "kind": "conference",
        "short": None,
        "tags": {},
    }
    return Draft(**{**settings, **changes})


def snapshot(root) -> dict:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def cells(book, slug="short-gpt") -> dict:
    return {
        cell.id: cell
        for cell in nbformat.read(book / "papers" / f"{slug}.ipynb", as_version=4).cells
    }


def fill_in(book, slug="short-gpt") -> None:
    """Do what a contributor does: replace every place, in the simplest way that passes."""
    path = book / "papers" / f"{slug}.ipynb"
    content = nbformat.read(path, as_version=4)
    front = yaml.safe_load(content.cells[0].source.strip("-\n"))
    front["paper"] |= {"code": None, "takeaway": "It cuts layers, at a cost."}
    for facet, entry in front["paper"]["tags"].items():
        if MARK in entry["values"][0]:
            entry["values"] = [VOCABULARY[facet][0]]
    content.cells[0].source = yaml.safe_dump(front, sort_keys=False)
    for cell in content.cells[1:]:
        cell.source = cell.source.replace(f"{MARK}: ", "")
    nbformat.write(content, path)


def problems(book, *names) -> list[str]:
    return [str(problem) for problem in check(book, names)]


def make_pages(book):
    """The pages that the template links to."""
    for name in (
        "types",
        "criteria",
        "budget",
        "data",
        "finetune",
        "weight_update",
        "other_concepts",
    ):
        (book / "concepts").mkdir(exist_ok=True)
        (book / "concepts" / f"{name}.md").write_text(f"# {name}\n")


def test_record_only(book):
    make_pages(book)
    before = snapshot(book)
    written = [str(path) for path in new_paper(book, draft(), record_only=True)]
    assert written == ["papers/short-gpt.ipynb", "_toc.yml"]
    assert {
        str(path) for path in snapshot(book).items() ^ before.items() for path in path[:1]
    } == set(written)
    assert list(cells(book)) == ["record", "title", "challenge", "method", "see-also"]
    fill_in(book)
    assert problems(book, "short-gpt") == []
    record = read_paper(book / "papers/short-gpt.ipynb").record
    assert (record.title, record.short, record.year) == (
        "ShortGPT: Layers are Redundant",
        "ShortGPT",
        2025,
    )
    assert record.authors == ["Xin Men", "Mingyu Xu", "Qingyu Zhang"]
    assert record.venue.model_dump() == {"name": "ACL", "year": 2025, "kind": "conference"}
    assert (record.arxiv, record.openreview, record.method) == ("2403.03853", None, None)
    assert (record.challenge, record.added) == ("short-gpt-2025", datetime.date.today())
    assert cells(book)["title"].source.startswith("# ShortGPT: Layers are Redundant\n")
    assert "(https://arxiv.org/abs/2403.03853)" in cells(book)["see-also"].source


def test_every_place_of_a_fresh_record_is_named(book):
    make_pages(book)
    new_paper(book, draft(tags={"type": ["Structured-Depth"]}), record_only=True)
    found = [line.removeprefix("papers/short-gpt.ipynb: ") for line in problems(book, "short-gpt")]
    facets = ("criteria", "budget", "data", "retrain", "weight")
    assert [line.partition(": replace FILL-IN with ")[0] for line in found] == [
        "paper.code",
        "paper.takeaway",
        *(f"paper.tags.{facet}.values[0]" for facet in facets),
        "cell 1, line 3",
        "cell 2 (challenge), line 3",
        "cell 2 (challenge), line 4",
        "cell 3 (method), line 3",
        "cell 3 (method), line 5",
        "cell 4 (see-also), line 3",
    ]
    assert found[3].endswith(
        "replace FILL-IN with one or more of Sparsity, Layer Numbers, Parameter, FLOPs"
    )


def test_with_a_method(book):
    make_pages(book)
    written = [str(path) for path in new_paper(book, draft(tags=TAGS), record_only=False)]
    source = "lib/prunebook/methods/short_gpt.py"
    test = "tests/methods/test_short_gpt.py"
    assert written == [
        "papers/short-gpt.ipynb",
        "_toc.yml",
        source,
        test,
        "lib/prunebook/methods/registry.py",
    ]
    assert method_names(book / "lib/prunebook/methods/registry.py") == [
        "magnitude",
        "short-gpt",
        "wanda",
    ]
    assert [cell.metadata.get("tags", []) for cell in cells(book).values()] == [
        ["record"],
        [],
        ["challenge"],
        ["method"],
        ["parameters"],
        [],
        ["source"],
        [],
        ["run"],
        ["run"],
        [],
        ["figure"],
        [],
        ["claims"],
        ["see-also"],
    ]
    text = (book / source).read_text()
    assert "Men et al., ShortGPT: Layers are Redundant (arXiv 2403.03853)" in text
    assert '"type": ["Unstructured", "Semi-structured"],' in text
    fill_in(book)
    left = problems(book, "short-gpt")
    assert {line.partition(": ")[0] for line in left} == {source, test}
    for file in (source, test):
        (book / file).write_text((book / file).read_text().replace("FILL-IN: ", ""))
    (book / source).write_text((book / source).read_text().replace("FILL-IN", ""))
    assert problems(book, "short-gpt") == []


def test_a_method_for_a_paper_without_one(book):
    make_pages(book)
    before = nbformat.read(book / "papers/scaling.ipynb", as_version=4).cells
    written = [str(path) for path in add_method(book, "scaling")]
    assert written == [
        "papers/scaling.ipynb",
        "lib/prunebook/methods/scaling.py",
        "tests/methods/test_scaling.py",
        "lib/prunebook/methods/registry.py",
    ]
    after = nbformat.read(book / "papers/scaling.ipynb", as_version=4).cells
    assert read_paper(book / "papers/scaling.ipynb").record.method == "scaling"
    assert [cell.source for cell in after[1:4]] == [cell.source for cell in before[1:4]]
    assert after[-1].source == before[-1].source
    assert [cell.id for cell in after[4:-1]] == [
        "parameters",
        "source-heading",
        "source",
        "run-heading",
        "run-load",
        "run-compare",
        "figure-heading",
        "figure",
        "claims-heading",
        "claims",
    ]
    assert all(MARK in line for line in problems(book, "scaling"))
    for slug, message in [
        ("scaling", "scaling has a method already: scaling"),
        ("ghost", "unknown paper 'ghost'; "),
    ]:
        with pytest.raises(UserError, match=f"^{message}"):
            add_method(book, slug)


def test_a_method_as_generated_prunes_once_its_score_is_written(
    book, make_model, tokens, monkeypatch
):
    """The skeleton with Wanda's score is Wanda."""
    import torch

    from prunebook import methods
    from prunebook.models.anatomy import find_blocks, weight_of

    new_paper(book, draft(), record_only=False)
    source = book / "lib/prunebook/methods/short_gpt.py"
    spec = importlib.util.spec_from_file_location("prunebook.methods.short_gpt", source)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(methods.REGISTRY, "short-gpt", ("short_gpt", "ShortGPT"))
    ours = make_model("llama")
    theirs = make_model("llama")
    with pytest.raises(NotImplementedError, match="FILL-IN: the score of the paper"):
        methods.prune(ours, "short-gpt", sparsity=0.5, calibration=tokens)
    monkeypatch.setattr(module, "short_gpt_score", lambda weight, norm: weight.abs().float() * norm)
    methods.prune(ours, "short-gpt", sparsity=0.5, calibration=tokens)
    methods.prune(theirs, "wanda", sparsity=0.5, calibration=tokens)
    for left, right in zip(find_blocks(ours), find_blocks(theirs), strict=True):
        for name in left.linears:
            assert torch.equal(weight_of(left.linears[name]), weight_of(right.linears[name]))
    matrix = torch.tensor([[1.0, -2, 3, -4], [4, 3, 2, 1]])
    inputs = torch.diag(torch.tensor([8.0, 1, 1, 0.5]))
    pruned = module.ShortGPT(sparsity=0.5).prune_matrix(matrix, inputs)
    assert pruned.tolist() == [[1, 0, 3, 0], [4, 3, 0, 0]]
    with pytest.raises(UserError, match="scope 'model' is not allowed for short-gpt"):
        module.ShortGPT(sparsity=0.5, scope="model")


LONG = (
    "On the Very Surprising and Perhaps Unreasonable Effectiveness of an Extremely Long Title "
    "that Has No Colon" * 2
)


@pytest.mark.parametrize("title", ["ShortGPT: Layers", LONG, 'A "quoted" title \\ with """ quotes'])
def test_what_is_generated_is_in_order_for_ruff(book, title):
    ruff = shutil.which(
        "ruff", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    )
    new_paper(book, draft(title=title), record_only=False)
    (book / "ruff.toml").write_text(
        f'extend = "{PROJECT}/pyproject.toml"\n[lint.isort]\nknown-first-party = ["prunebook"]\n'
    )
    files = ["lib/prunebook/methods", "tests/methods/test_short_gpt.py", "papers/short-gpt.ipynb"]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([ruff, *command, *files], cwd=book, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_titles_and_names_of_strangers_are_text(book):
    title = "<script>alert(1)</script>: {x: 1} # no [comment](a) 'quoted' \\n"
    people = ["Jane O'Neil", "null", "李 明", "a: b"]
    new_paper(book, draft(title=title, authors=people, venue="yes", tags=TAGS), record_only=False)
    fill_in(book)
    record = read_paper(book / "papers/short-gpt.ipynb").record
    assert (record.title, record.authors, record.venue.name) == (title, people, "yes")
    heading = cells(book)["title"].source.splitlines()[0]
    assert "<script>" not in heading
    assert "[comment]" not in heading
    assert (
        ast.get_docstring(ast.parse((book / "lib/prunebook/methods/short_gpt.py").read_text()))
        is not None
    )


def test_texts_are_on_one_line(book):
    new_paper(
        book,
        draft(title="ShortGPT:\n  Layers", authors=["Xin\tMen"], venue=" ACL "),
        record_only=True,
    )
    fill_in(book)
    record = read_paper(book / "papers/short-gpt.ipynb").record
    assert (record.title, record.authors, record.venue.name) == (
        "ShortGPT: Layers",
        ["Xin Men"],
        "ACL",
    )


def test_openreview(book):
    new_paper(book, draft(identifier="09iOdaeOzp"), record_only=True)
    fill_in(book)
    record = read_paper(book / "papers/short-gpt.ipynb").record
    assert (record.arxiv, record.openreview) == (None, "09iOdaeOzp")
    assert record.url == "https://openreview.net/forum?id=09iOdaeOzp"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"identifier": "2403.3853x"},
            "'2403.3853x' is no id of a paper; allowed: an arXiv id without version, as ",
        ),
        ({"identifier": "2403.03853v2"}, "'2403.03853v2' is no id"),
        ({"identifier": "240303853"}, "'240303853' is no id"),
        ({"identifier": "../../etc"}, "'../../etc' is no id"),
        ({"identifier": "2306.11695"}, "2306.11695 is in the book already: papers/wanda.ipynb"),
        ({"identifier": "PxoFut3dWW"}, "PxoFut3dWW is in the book already: papers/wanda.ipynb"),
        ({"slug": "Short"}, "slug 'Short' must be lower-case letters, digits and single dashes"),
        ({"slug": "../x"}, "slug '../x' must be"),
        ({"slug": "a\n"}, r"slug 'a\\n' must be"),
        ({"slug": "wanda"}, "papers/wanda.ipynb exists already; choose another --slug"),
        ({"slug": "magnitude"}, "method 'magnitude' exists already; choose another --slug"),
        (
            {"slug": "engine"},
            "lib/prunebook/methods/engine.py exists already; choose another --slug",
        ),
        ({"slug": "2of4"}, "slug '2of4' cannot name a Python module; begin it with a letter"),
        ({"slug": "lambda"}, "slug 'lambda' cannot name a Python module"),
        (
            {"title": "Wanda: Again"},
            "class name 'Wanda' is taken in lib/prunebook/methods; choose another with --short",
        ),
        ({"title": " "}, "the record: paper.title: must not be empty"),
        (
            {"title": "a\u202eb"},
            r"the record: paper.title: .* holds the invisible character U\+202E",
        ),
        ({"authors": []}, "the record: paper.authors: must not be empty"),
        ({"year": 1066}, "the record: paper.year: 1066 must be greater than or equal to 1980"),
        ({"kind": "poster"}, "the record: paper.venue.kind: 'poster' is not allowed; allowed: "),
    ],
)
def test_refusals_change_nothing(book, changes, message):
    (book / "lib/prunebook/methods/engine.py").write_text("")
    before = snapshot(book)
    with pytest.raises(UserError, match=f"^{message}") as caught:
        new_paper(book, draft(**changes), record_only=False)
    assert "\n" not in str(caught.value)
    assert snapshot(book) == before


def test_a_method_needs_a_clone(book):
    shutil.rmtree(book / "lib")
    with pytest.raises(
        UserError,
        match=r"^no library at .*: a method needs a clone of the repository; try --record",
    ):
        check_new(book, "2403.03853", "short-gpt", record_only=False)
    assert [paper.slug for paper in check_new(book, "2403.03853", "short-gpt", True)] == [
        "wanda",
        "scaling",
    ]


def test_a_broken_record_elsewhere_is_named(book):
    write(book, other_record(year=24))
    with pytest.raises(UserError, match=r"^papers/scaling.ipynb: paper.year: 24 "):
        new_paper(book, draft(), record_only=True)


@pytest.mark.parametrize("fails_at", range(5))
def test_a_failure_while_files_get_their_names_is_undone(book, monkeypatch, fails_at):
    before = snapshot(book)
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
        new_paper(book, draft(), record_only=False)
    assert len(calls) == fails_at + 1
    assert snapshot(book) == before


def test_a_full_disk_changes_nothing(book, full_disk):
    before = snapshot(book)
    with full_disk(3000), pytest.raises(UserError, match=r"^cannot write .*: File too large$"):
        new_paper(book, draft(), record_only=False)
    assert snapshot(book) == before


CONTENTS = (
    "parts:\n- chapters:\n  - file: papers/a  # first\n  - file: papers/b\n  - file: concepts/x\n"
)


@pytest.mark.parametrize(
    ("later", "expected"),
    [(["a", "b"], ["new", "a", "b"]), (["b"], ["a", "new", "b"]), ([], ["a", "b", "new"])],
)
def test_place_in_the_contents(later, expected):
    text = CONTENTS.replace("  # first", "")
    result = with_paper(text, "new", later)
    assert listed_papers(result) == expected
    assert result.replace("  - file: papers/new\n", "") == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chapters: [{file: papers/a}]\n", "lists no paper as `- file: papers/<slug>`"),
        (
            "- file: papers/a\n  sections:\n  - file: concepts/b\n",
            "papers must stand in lines of their own",
        ),
        ("a: [", "cannot be read: "),
    ],
)
def test_contents_without_a_place(text, message):
    with pytest.raises(UserError, match=f"^_toc.yml: ({message})"):
        with_paper(text, "new", [])


@pytest.mark.parametrize(
    ("name", "class_name"), [("alpha", "Alpha"), ("owl", "OWL"), ("zero", "Zero")]
)
def test_registry_stays_sorted(name, class_name):
    values = {}
    exec(with_method(REGISTRY, name, name, class_name), values)
    assert list(values["REGISTRY"]) == sorted(["magnitude", "wanda", name])
    assert values["REGISTRY"][name] == (name, class_name)


def test_a_registry_in_another_form_is_refused():
    with pytest.raises(UserError, match="REGISTRY must hold one entry a line"):
        with_method('REGISTRY = {"a": ("a", "A")}\n__all__ = ["A"]\n', "b", "b", "B")
