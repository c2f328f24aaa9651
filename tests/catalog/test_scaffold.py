"""New papers and methods from the templates: complete, in their places, all files or none."""

import os
import shutil

import nbformat
import pytest
import yaml
from tests.tiny_book import other_record, write

from prunebook.catalog import VOCABULARY, check, read_paper
from prunebook.catalog.contents import listed_papers
from prunebook.catalog.draft import Draft
from prunebook.catalog.placeholders import MARK
from prunebook.catalog.registry import read_registry
from prunebook.catalog.scaffold import add_method, check_new, new_paper
from prunebook.errors import UserError

TAGS = {
    "type": ["Unstructured", "Semi-structured"],
    "criteria": ["Other"],
    "budget": ["Sparsity"],
    "data": ["Calibration"],
    "retrain": ["Without"],
    "weight": ["Frozen"],
}
LINKED = ("types", "criteria", "budget", "data", "finetune", "weight_update", "other_concepts")


@pytest.fixture
def book(book):
    """The sound book, with a room of caches and the pages that the template links to."""
    for folder in ("lib/prunebook/caches", "tests/caches", "concepts"):
        (book / folder).mkdir()
    (book / "lib/prunebook/caches/registry.py").write_text("REGISTRY = {\n}\n")
    for name in LINKED:
        (book / "concepts" / f"{name}.md").write_text(f"# {name}\n")
    return book


def draft(**changes) -> Draft:
    settings = {
        "identifier": "2403.03853",
        "slug": "short-gpt",
        "title": "ShortGPT: Layers are Redundant",
        "authors": ["Xin Men", "Mingyu Xu", "Qingyu Zhang"],
        "year": 2025,
        "venue": "ACL",
        "venue_kind": "conference",
        "short": None,
        "tags": {},
    }
    return Draft(**{**settings, **changes})


def snapshot(root) -> dict:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def cells(book, slug="short-gpt") -> dict:
    content = nbformat.read(book / "papers" / f"{slug}.ipynb", as_version=4)
    return {cell.id: cell for cell in content.cells}


def tags_in_order(book, slug="short-gpt") -> list[str]:
    """The tags of the cells, each once."""
    tags = {}
    for cell in cells(book, slug).values():
        tags |= dict.fromkeys(cell.metadata.get("tags", []))
    return list(tags)


def fill_in(book, slug="short-gpt") -> None:
    """Do what a contributor does: replace every place, in the simplest way that passes."""
    path = book / "papers" / f"{slug}.ipynb"
    content = nbformat.read(path, as_version=4)
    front = yaml.safe_load(content.cells[0].source.strip("-\n"))
    front["paper"] |= {"code": None, "takeaway": "It cuts layers, at a cost."}
    for facet, entry in front["paper"]["tags"].items():
        if MARK in entry["values"][0]:
            entry["values"] = [VOCABULARY[facet][0]]
    content.cells[0].source = yaml.safe_dump(front, sort_keys=False).replace(f"{MARK}: ", "")
    for cell in content.cells[1:]:
        cell.source = cell.source.replace(f"{MARK}: ", "")
    nbformat.write(content, path)


def problems(book, *names) -> list[str]:
    return [str(problem) for problem in check(book, names)]


def test_record_only(book):
    before = snapshot(book)
    written = [str(path) for path in new_paper(book, draft(), None)]
    assert written == ["papers/short-gpt.ipynb", "_toc.yml"]
    changed = {str(path) for path, _ in snapshot(book).items() ^ before.items()}
    assert changed == set(written)
    assert list(cells(book)) == ["record", "title", "method", "challenge", "see-also"]
    fill_in(book)
    assert problems(book, "short-gpt") == []
    record = read_paper(book / "papers/short-gpt.ipynb").record
    assert (record.title, record.method) == ("ShortGPT: Layers are Redundant", None)
    assert (record.claims, record.errata) == ([], [])
    assert cells(book)["title"].source.startswith("# ShortGPT: Layers are Redundant\n")
    assert "(https://arxiv.org/abs/2403.03853)" in cells(book)["see-also"].source


def test_every_place_of_a_fresh_record_is_named(book):
    new_paper(book, draft(tags={"type": ["Structured-Depth"]}), None)
    lines = [line.removeprefix("papers/short-gpt.ipynb: ") for line in problems(book, "short-gpt")]
    facets = ("criteria", "budget", "data", "retrain", "weight")
    assert [line.partition(": replace FILL-IN with ")[0] for line in lines] == [
        "paper.code",
        "paper.takeaway",
        *(f"paper.tags.{facet}.values[0]" for facet in facets),
        "cell 1, line 3",
        "cell 2 (method), line 3",
        "cell 2 (method), line 5",
        "cell 3 (challenge), line 3",
        "cell 3 (challenge), line 4",
        "cell 4 (see-also), line 3",
    ]
    assert lines[3].endswith(
        "replace FILL-IN with one or more of Sparsity, Layer Numbers, Parameter, FLOPs"
    )


@pytest.mark.parametrize(
    ("kind", "room", "class_name"),
    [
        ("score", "methods", "ShortGPT"),
        ("structured", "methods", "ShortGPT"),
        ("training", "methods", "ShortGPT"),
        ("cache", "caches", "ShortGPTCache"),
    ],
)
def test_with_a_method(book, kind, room, class_name):
    written = [str(path) for path in new_paper(book, draft(tags=TAGS), kind)]
    source = f"lib/prunebook/{room}/short_gpt.py"
    test = f"tests/{room}/test_short_gpt.py"
    registry = f"lib/prunebook/{room}/registry.py"
    assert written == ["papers/short-gpt.ipynb", "_toc.yml", source, test, registry]
    entry = read_registry(book)["short-gpt"]
    assert (entry.class_name, str(entry.source), str(entry.test)) == (class_name, source, test)
    assert tags_in_order(book) == [
        "record",
        "method",
        "parameters",
        "source",
        "run",
        "figure",
        "claims",
        "challenge",
        "errata",
        "see-also",
    ]
    text = (book / source).read_text()
    assert "Men et al., ShortGPT: Layers are Redundant (arXiv 2403.03853)." in text
    assert f"class {class_name}(" in text
    fill_in(book)
    files_with_places = {line.partition(": ")[0] for line in problems(book, "short-gpt")}
    assert files_with_places == {source, test}
    for file in (source, test):
        (book / file).write_text((book / file).read_text().replace(MARK, "Filled in"))
    assert problems(book, "short-gpt") == []


@pytest.mark.parametrize("kind", ["score", "cache"])
def test_a_method_for_a_paper_without_one(book, kind):
    before = cells(book, "scaling")
    path = book / "papers/scaling.ipynb"
    room = {"cache": "caches"}.get(kind, "methods")
    written = [str(path) for path in add_method(book, "scaling", kind)]
    assert written == [
        "papers/scaling.ipynb",
        f"lib/prunebook/{room}/scaling.py",
        f"tests/{room}/test_scaling.py",
        f"lib/prunebook/{room}/registry.py",
    ]
    record = read_paper(path).record
    assert record.method == "scaling"
    assert [claim.key for claim in record.claims] == ["beats-the-baseline", "zero-shot-accuracy"]
    after = cells(book, "scaling")
    for name, cell in list(before.items())[1:]:
        assert after[name].source == cell.source
    assert tags_in_order(book, "scaling") == [
        "record",
        "method",
        "parameters",
        "source",
        "run",
        "figure",
        "claims",
        "challenge",
        "errata",
        "see-also",
    ]
    assert all(MARK in line for line in problems(book, "scaling"))
    for slug, message in [
        ("scaling", "scaling has a method already: scaling"),
        ("ghost", "unknown paper 'ghost'; "),
    ]:
        with pytest.raises(UserError, match=f"^{message}"):
            add_method(book, slug, kind)


def test_a_record_as_the_command_wrote_it_takes_a_method(book):
    new_paper(book, draft(), None)
    fill_in(book)
    add_method(book, "short-gpt", "structured")
    whole = list(cells(book))
    new_paper(book, draft(identifier="2403.03854", slug="other", short="Other"), "structured")
    assert whole == list(cells(book, "other"))


def test_claims_that_a_record_has_stay(book):
    stated = {
        "key": "larger-is-sparser",
        "origin": "paper",
        "statement": "Larger models are sparser",
        "number": "1.1 times",
        "source": "Table 1",
    }
    write(book, other_record(claims=[stated], errata=[]))
    add_method(book, "scaling", "training")
    record = read_paper(book / "papers/scaling.ipynb").record
    assert [claim.key for claim in record.claims] == ["larger-is-sparser"]
    assert record.errata == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"identifier": "2403.3853x"},
            "'2403.3853x' is no id of a paper; allowed: an arXiv id without version, e.g. ",
        ),
        ({"identifier": "2403.03853v2"}, "'2403.03853v2' is no id"),
        ({"identifier": "240303853"}, "'240303853' is no id"),
        ({"identifier": "2413.03853"}, "'2413.03853' is no id"),
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
        (
            {"short": "NofM"},
            "class name 'NofM' is taken in lib/prunebook/methods; choose another with --short",
        ),
        ({"title": " "}, "papers/short-gpt.ipynb: paper.title: must not be empty"),
    ],
)
def test_refusals_change_nothing(book, changes, message):
    (book / "lib/prunebook/methods/engine.py").write_text("")
    (book / "lib/prunebook/methods/base.py").write_text("from ..sparsity.patterns import NofM\n")
    before = snapshot(book)
    with pytest.raises(UserError, match=f"^{message}") as caught:
        new_paper(book, draft(**changes), "score")
    assert "\n" not in str(caught.value)
    assert snapshot(book) == before


def test_a_cache_gets_no_name_that_its_room_uses(book):
    (book / "lib/prunebook/caches/baselines.py").write_text("class RandomCache:\n    pass\n")
    before = snapshot(book)
    message = "^class name 'RandomCache' is taken in lib/prunebook/caches; choose another with"
    with pytest.raises(UserError, match=message):
        new_paper(book, draft(short="Random"), "cache")
    assert snapshot(book) == before


@pytest.mark.parametrize("kind", ["score", "cache"])
def test_a_method_needs_a_clone(book, kind):
    shutil.rmtree(book / "lib")
    with pytest.raises(
        UserError,
        match=r"^no library at .*: a method needs a clone of the repository; try --record",
    ):
        check_new(book, "2403.03853", "short-gpt", kind)
    papers = check_new(book, "2403.03853", "short-gpt", None)
    assert [paper.slug for paper in papers] == ["wanda", "scaling"]


OTHER = {"identifier": "2403.03854", "slug": "other", "short": "Other", "year": 2026}


@pytest.mark.parametrize("kind", [None, "score"])
def test_a_second_draft_beside_one_that_is_not_filled_in(book, kind):
    new_paper(book, draft(), kind)
    written = [str(path) for path in new_paper(book, draft(**OTHER), kind)]
    assert written[:2] == ["papers/other.ipynb", "_toc.yml"]
    assert listed_papers((book / "_toc.yml").read_text()) == [
        "other",
        "short-gpt",
        "wanda",
        "scaling",
    ]
    for slug in ("short-gpt", "other"):
        assert all(MARK in line for line in problems(book, slug))
    message = r"^2403\.03853 is in the book already: papers/short-gpt\.ipynb$"
    with pytest.raises(UserError, match=message):
        new_paper(book, draft(slug="again", short="Again"), None)


def test_a_method_beside_drafts_and_for_one(book):
    new_paper(book, draft(), None)
    new_paper(book, draft(**OTHER), None)
    add_method(book, "scaling", "score")
    add_method(book, "short-gpt", "score")
    assert {"scaling", "short-gpt"} < set(read_registry(book))
    assert all(MARK in line for line in problems(book, "short-gpt"))


def test_a_broken_record_elsewhere_stops_no_new_paper(book):
    write(book, other_record(year=24))
    (book / "papers/torn.ipynb").write_text("{")
    new_paper(book, draft(), "score")
    write(book, other_record(slug="second", short="Second"))
    add_method(book, "second", "score")
    assert {"short-gpt", "second"} < set(read_registry(book))


def test_a_file_that_cannot_be_written_changes_nothing(book, monkeypatch):
    before = snapshot(book)
    real = os.replace

    def replace(source, target):
        if str(target).endswith("test_short_gpt.py"):
            raise OSError(5, "Input/output error", str(source), None, str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError, match=r"^cannot write .*: Input/output error$"):
        new_paper(book, draft(), "score")
    assert snapshot(book) == before
