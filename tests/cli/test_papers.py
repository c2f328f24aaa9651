"""The commands on papers: what they print, what they ask, what they write."""

import json
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner
from tests.cli.calling import call, error
from tests.tiny_book import other_record, write

from prunebook.catalog.metadata import Metadata, NoAnswerError
from prunebook.cli.main import main
from prunebook.errors import UserError


def test_list(book):
    tags = (
        "type=Unstructured,Semi-structured criteria=Wanda budget=Sparsity data=Calibration "
        "retrain=Without weight=Frozen"
    )
    assert call("list").stdout.splitlines() == [
        f"Year  Slug     Short    Venue      {'Tags':<{len(tags)}}  State",
        f"2024  wanda    Wanda    ICLR 2024  {tags}  runs",
        f"2023  scaling  Scaling  ICLR 2024  {tags}  not run yet",
    ]


def test_list_as_json(book):
    papers = json.loads(call("list", "--json").stdout)
    assert [paper["notebook"] for paper in papers] == ["papers/wanda.ipynb", "papers/scaling.ipynb"]
    assert papers[0]["tags"]["budget"] == {"values": ["Sparsity"], "detail": "layer"}
    assert papers[0]["runs_in"][0]["date"] == "2026-11-23"


def test_list_by_tag(book):
    write(book, other_record(**{"tags.weight.values": ["Update"]}))
    for arguments, slugs in [
        (["--tag", "weight=Update"], ["scaling"]),
        (["--tag", "weight=Frozen", "--tag", "type=Semi-structured"], ["wanda"]),
        (["--tag", "weight=Other"], []),
    ]:
        assert [
            paper["slug"] for paper in json.loads(call("list", "--json", *arguments).stdout)
        ] == slugs
    assert call("list", "--tag", "weight=Other").stdout == ""


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        (
            "kind=Other",
            "unknown facet 'kind'; allowed: type, criteria, budget, data, retrain, weight",
        ),
        ("weight", "unknown weight value ''; allowed: Frozen, Update, Other"),
        ("weight=frozen", "unknown weight value 'frozen'; allowed: Frozen, Update, Other"),
    ],
)
def test_list_by_unknown_tag(book, tag, message):
    assert error("list", "--tag", tag) == f"prunebook: {message}"


def test_show(book):
    assert call("show", "wanda").stdout == (
        "Wanda: A Simple and Effective Pruning Approach\n\n"
        "Scores a weight by its size times the norm of its input.\n\n"
        "authors   Mingjie Sun, Zhuang Liu\n"
        "venue     ICLR 2024 (conference)\n"
        "paper     https://arxiv.org/abs/2306.11695\n"
        "code      https://github.com/locuslab/wanda (official, MIT)\n"
        "tags      type=Unstructured,Semi-structured  criteria=Wanda  budget=Sparsity  "
        "data=Calibration  "
        "retrain=Without  weight=Frozen\n"
        "method    wanda\n"
        "notebook  papers/wanda.ipynb\n"
        "blog      https://example.org/blog\n"
    )
    lines = call("show", "scaling").stdout.splitlines()
    assert [line.split()[0] for line in lines[4:]] == [
        "authors",
        "venue",
        "tags",
        "method",
        "notebook",
    ]
    assert "method    not run yet" in lines


def test_show_as_json(book):
    paper = json.loads(call("show", "wanda", "--json").stdout)
    assert (paper["notebook"], paper["slug"], paper["method"]) == (
        "papers/wanda.ipynb",
        "wanda",
        "wanda",
    )


def test_show_unknown_paper(book):
    assert error("show", "wander") == "prunebook: unknown paper 'wander'; allowed: scaling, wanda"


GIVEN = (
    "--title",
    "ShortGPT: Layers",
    "--author",
    "Xin Men",
    "--author",
    "Mingyu Xu",
    "--year",
    "2025",
    "--venue",
    "ACL",
)


@pytest.fixture
def answers(monkeypatch):
    """Stands in for arXiv and OpenReview: `answers.found` is what they say, an error is raised."""
    state = SimpleNamespace(
        found=NoAnswerError("export.arxiv.org cannot be reached: refused"), asked=[]
    )

    def fetch(identifier):
        state.asked.append(identifier)
        if isinstance(state.found, Exception):
            raise state.found
        return state.found

    monkeypatch.setattr("prunebook.cli.papers.fetch_metadata", fetch)
    return state


def test_new_asks_nothing_if_all_is_given(book, answers):
    arguments = ["2403.03853", "--slug", "shortgpt", "--kind", "score", *GIVEN]
    lines = call("new", *arguments).stdout.splitlines()
    assert lines == [
        "papers/shortgpt.ipynb",
        "_toc.yml",
        "lib/prunebook/methods/shortgpt.py",
        "tests/methods/test_shortgpt.py",
        "lib/prunebook/methods/registry.py",
        "short name 'ShortGPT', class ShortGPT; --short gives others",
        "now fill in what `prunebook check shortgpt` lists",
    ]
    assert answers.asked == []
    call("check", "shortgpt", code=2)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--kind", "cache"], "short name 'Layers are redundant', class LayersareredundantCache"),
        (["--kind", "score", "--short", "Cut-GPT"], "short name 'Cut-GPT', class CutGPT"),
        (["--record-only"], "short name 'Layers are redundant'"),
    ],
)
def test_new_says_which_names_it_chose(book, answers, options, names):
    (book / "lib/prunebook/caches").mkdir()
    (book / "lib/prunebook/caches/registry.py").write_text("REGISTRY = {\n}\n")
    (book / "tests/caches").mkdir()
    title = ("--title", "Layers are redundant")
    result = call("new", "2403.03853", "--slug", "shortgpt", *options, *GIVEN[2:], *title)
    assert result.stdout.splitlines()[-2] == f"{names}; --short gives others"


def test_new_and_add_method_beside_a_draft(book, answers):
    call("new", "2403.03853", "--slug", "shortgpt", "--record-only", *GIVEN)
    call("new", "2403.03854", "--slug", "other", "--kind", "score", "--short", "Other", *GIVEN)
    call("add-method", "scaling", "--kind", "training")
    assert call("show", "wanda").stdout.startswith("Wanda: ")
    assert error("list").startswith("prunebook: papers/other.ipynb: paper.code: 'FILL-IN: ")


def record_of(book, slug) -> dict:
    front = json.loads((book / "papers" / f"{slug}.ipynb").read_text())["cells"][0]["source"]
    return yaml.safe_load("".join(front).strip("-\n"))["paper"]


def test_new_takes_what_the_service_says(book, answers):
    answers.found = Metadata(
        "ShortGPT: Layers", ("Xin Men",), 2024, "arXiv", "preprint", "Accepted at ACL"
    )
    result = call(
        "new", "2403.03853", "--slug", "shortgpt", "--record-only", "--tag", "type=Structured-Depth"
    )
    assert (
        result.stdout.splitlines()[0]
        == "remark of the authors, perhaps on the venue: Accepted at ACL"
    )
    assert answers.asked == ["2403.03853"]
    record = record_of(book, "shortgpt")
    assert (record["authors"], record["year"], record["method"]) == (["Xin Men"], 2024, None)
    assert record["venue"] == {"name": "arXiv", "year": 2024, "kind": "preprint"}
    assert record["tags"]["type"] == {"values": ["Structured-Depth"]}


def test_what_is_given_goes_before_what_is_found(book, answers):
    answers.found = Metadata("ShortGPT: Layers", ("Xin Men",), 2024, "arXiv", "preprint")
    arguments = ["--record-only", "--venue", "ACL", "--year", "2025", "--short", "Short"]
    call("new", "2403.03853", "--slug", "shortgpt", *arguments)
    record = record_of(book, "shortgpt")
    assert record["venue"] == {"name": "ACL", "year": 2025, "kind": "conference"}
    assert (record["year"], record["short"]) == (2025, "Short")


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ((), "--title --author --year --venue --venue-kind"),
        (GIVEN[:8], "--venue --venue-kind"),
        (("--venue", "ACL"), "--title --author --year"),
    ],
)
def test_new_asks_nothing_where_nobody_can_answer(book, answers, options, missing):
    arguments = ["new", "2403.03853", "--slug", "shortgpt", "--record-only", *options]
    assert error(*arguments) == (
        f"prunebook: export.arxiv.org cannot be reached: refused; give {missing}"
    )
    answers.found = Metadata("ShortGPT: Layers", ("Xin Men",), 2024)
    if "--venue" in missing:
        message = "prunebook: not all of the paper is known; give --venue --venue-kind"
        assert error(*arguments) == message
    assert not (book / "papers" / "shortgpt.ipynb").exists()


def test_new_asks_where_there_is_no_network(book, answers, monkeypatch):
    monkeypatch.setattr("prunebook.cli.papers._can_ask", lambda: True)
    typed = "ShortGPT: Layers\nXin Men, Mingyu Xu\nsoon\n2025\nACL\n"
    arguments = ["new", "2403.03853", "--slug", "shortgpt", "--record-only"]
    result = CliRunner().invoke(main, arguments, input=typed)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == [
        "prunebook: export.arxiv.org cannot be reached: refused; please type what it would have "
        "said"
    ]
    record = record_of(book, "shortgpt")
    assert (record["title"], record["authors"]) == ("ShortGPT: Layers", ["Xin Men", "Mingyu Xu"])
    assert (record["year"], record["venue"]["name"]) == (2025, "ACL")


def test_new_refuses_before_it_asks(book, answers):
    new = ["new", "2403.03853", "--kind", "score", "--slug"]
    assert error(*new, "wanda") == (
        "prunebook: papers/wanda.ipynb exists already; choose another --slug, or correct that "
        "notebook"
    )
    assert error("new", "2306.11695", "--slug", "a", "--record-only") == (
        "prunebook: 2306.11695 is in the book already: papers/wanda.ipynb"
    )
    assert error(*new, "a", "--tag", "type=Flat").startswith(
        "prunebook: unknown type value 'Flat'; allowed: "
    )
    assert answers.asked == []
    answers.found = UserError("arXiv has no paper '2403.03853'")
    assert error(*new, "a") == "prunebook: arXiv has no paper '2403.03853'"
    assert not (book / "papers" / "a.ipynb").exists()


@pytest.mark.parametrize("arguments", [[], ["--kind", "cache", "--record-only"]])
def test_new_needs_a_kind_or_the_record_alone(book, answers, arguments):
    assert error("new", "2403.03853", "--slug", "a", *arguments) == (
        "prunebook: give either --kind, one of score, structured, training, cache, or --record-only"
    )
    assert answers.asked == []


def test_add_method(book):
    add = ["add-method", "--kind", "structured"]
    lines = call(*add, "scaling").stdout.splitlines()
    assert lines[0] == "papers/scaling.ipynb"
    assert lines[-2] == "short name 'Scaling', class Scaling"
    assert lines[-1] == "now fill in what `prunebook check scaling` lists"
    assert record_of(book, "scaling")["method"] == "scaling"
    assert error(*add, "wanda") == "prunebook: wanda has a method already: wanda"
    call("add-method", "scaling", code=2)
