import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner
from tests.tiny_book import make_book, other_record, record, write

from prunebook import __version__
from prunebook.catalog import method_names
from prunebook.catalog.metadata import Metadata, NoAnswerError
from prunebook.cli.main import main
from prunebook.errors import UserError


@pytest.fixture
def book(tmp_path, monkeypatch):
    """The working folder: a sound book of two papers."""
    monkeypatch.chdir(make_book(tmp_path / "book"))
    return tmp_path / "book"


def call(*arguments, code=0):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def error(*arguments) -> str:
    """The one line of an error that a user caused."""
    result = call(*arguments, code=2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_version():
    assert call("--version").stdout.endswith(f"version {__version__}\n")


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


def test_outside_a_book(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["list"], ["show", "wanda"], ["check"]):
        assert error(*command).startswith(f"prunebook: no book at {tmp_path} or above it")


def test_a_broken_notebook_is_one_line_or_a_traceback(book):
    write(book, record(year=24))
    line = "papers/wanda.ipynb: paper.year: 24 must be greater than or equal to 1980"
    assert error("list") == f"prunebook: {line}"
    result = CliRunner().invoke(main, ["--debug", "list"])
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == line


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
    assert error("show", "wander") == "prunebook: unknown paper 'wander'; allowed: wanda, scaling"


def test_check(book):
    parts = "record, cells, tags, links, contents, method and test"
    sound = f"2 papers checked, nothing to mend: {parts}, tables\n"
    assert call("check").stdout == sound
    write(book, record(takeaway="New words."))
    stale = "README.md: does not match the notebooks; run `prunebook check --write`\n"
    assert call("check", code=2).stdout == stale
    assert call("check", "wanda").stdout == f"1 paper checked, nothing to mend: {parts}\n"
    assert call("check", "--write").stdout == sound
    assert call("check").stdout == sound
    assert error("check", "wander") == "prunebook: unknown paper 'wander'; allowed: scaling, wanda"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("damping", "--option 'damping' must be key=value, as in --option damping=0.05"),
        ("a b=1", "--option 'a b=1' must be key=value, as in --option damping=0.05"),
        ("damping=[1", "--option 'damping=[1' has a value that is no valid YAML"),
        ("pattern=2:4", "--option 'pattern=2:4' has an option of its own: --pattern 2:4"),
    ],
)
def test_prune_refuses_a_bad_option(option, message):
    assert (
        error("prune", "smollm2-135m", "sparsegpt", "--option", option) == f"prunebook: {message}"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wander"], "prunebook: method 'wander' is unknown; use "),
        (
            ["wanda", "--option", "damping=1"],
            "prunebook: method 'wanda' has no option damping; it has ",
        ),
        (["wanda", "--sparsity", "1.5"], "prunebook: sparsity 1.5 "),
        (["wanda", "--pattern", "3:2"], "prunebook: pattern '3:2' "),
    ],
)
def test_prune_refuses_a_bad_method_before_it_loads_a_model(arguments, message):
    assert error("prune", "no/such-model", *arguments).startswith(message)


def test_methods():
    lines = call("methods").stdout.splitlines()
    assert lines[0].split() == ["Method", "Paper", "Data", "Options"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert rows["magnitude"] == ["essential-sparsity", "none", "sparsity", "pattern", "scope=layer"]
    assert rows["wanda"][:2] == ["wanda", "calibration"]
    names = [entry["name"] for entry in json.loads(call("methods", "--json").stdout)]
    assert list(rows) == names == sorted(method_names())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a random two-block Llama of 20 words, `model`, and a text of these words,
    `text.txt`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

    folder = tmp_path_factory.mktemp("tiny")
    words = [f"w{index}" for index in range(20)]
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="w0")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(
        folder / "model"
    )
    set_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    (folder / "text.txt").write_text("\n".join(" ".join(words[line % 7 :]) for line in range(100)))
    return folder


@pytest.fixture
def on_tiny(tiny, tmp_path, monkeypatch):
    """The options that make a command use the tiny model and text on the CPU, in a cache of its
    own."""
    monkeypatch.setenv("PRUNEBOOK_CACHE", str(tmp_path / "cache"))
    return ["--text", str(tiny / "text.txt"), "--length", "16", "--device", "cpu"]


@pytest.mark.parametrize(
    ("method", "calibration"), [("magnitude", None), ("wanda", {"samples": 3, "length": 16})]
)
def test_prune_measures_and_saves(tiny, on_tiny, tmp_path, method, calibration):
    arguments = [
        str(tiny / "model"),
        method,
        "--samples",
        "3",
        "--windows",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    given = [*arguments, *on_tiny, "--pattern", "2:4"]
    result = json.loads(call("prune", *given, "--json").stdout)
    assert result["report"]["sparsity"] == 0.5
    assert result["report"]["pattern"] == "2:4"
    assert result["report"]["calibration"] == calibration
    assert result["saved"] == str(tmp_path / "out")
    recipe = json.loads((tmp_path / "out" / "prunebook.json").read_text())
    assert recipe["measured"] == result["measured"]
    pruned = json.loads(
        call("eval", str(tmp_path / "out"), "--windows", "2", *on_tiny, "--json").stdout
    )
    assert pruned["perplexity"] == pytest.approx(result["measured"]["perplexity"], rel=1e-6)
    dense = json.loads(
        call("eval", str(tiny / "model"), "--windows", "2", *on_tiny, "--json").stdout
    )
    assert dense["perplexity"] == pytest.approx(result["dense_perplexity"], rel=1e-6)


def test_prune_and_eval_print_tables(tiny, on_tiny, tmp_path):
    options = ["--option", "scope=row", "--sparsity", "0.25", "--windows", "2", *on_tiny]
    lines = call("prune", str(tiny / "model"), "magnitude", *options).stdout.splitlines()
    assert lines[0].startswith(
        "Method     Sparsity  Perplexity  KL to dense  Agreement  Seconds  Peak memory"
    )
    assert [line.split()[:2] for line in lines[1:]] == [["dense", "–"], ["magnitude", "25.00%"]]
    assert not (tmp_path / "out").exists()
    header, row = call("eval", str(tiny / "model"), "--windows", "2", *on_tiny).stdout.splitlines()
    assert header.startswith("Perplexity")
    assert str(tiny / "model") in row


@pytest.fixture
def fake_book(book, monkeypatch):
    """Stands in for running, building and serving; keeps what the command passed on."""
    calls = []

    def run_notebooks(root, slugs, **settings):
        calls.append((root, slugs, settings))
        return SimpleNamespace(failed=[slug for slug in slugs if slug == "scaling"])

    fakes = {
        "run": {"run_notebooks": run_notebooks},
        "build": {"build_site": lambda root: root / "_build" / "html"},
        "serve": {"serve": lambda root, port: calls.append((root, port))},
    }
    for name, functions in fakes.items():
        monkeypatch.setitem(sys.modules, f"prunebook.{name}", SimpleNamespace(**functions))
    return calls


def test_run(book, fake_book):
    call("run")
    call("run", "wanda", "scaling", "--profile", "full", "--jobs", "2", "--force", code=1)
    assert fake_book == [
        (
            book,
            [],
            {"profile": "quick", "jobs": None, "force": False, "since": None, "fail_fast": False},
        ),
        (
            book,
            ["wanda", "scaling"],
            {"profile": "full", "jobs": 2, "force": True, "since": None, "fail_fast": False},
        ),
    ]


def test_run_of_what_changed(book, fake_book):
    call("run", "--since", "main", "--fail-fast")
    call("run", "--only-changed")
    settings = [(settings["since"], settings["fail_fast"]) for _, _, settings in fake_book]
    assert settings == [("main", True), ("HEAD", False)]
    said = call("run", "--since", "main", "--only-changed", code=2).stderr
    assert said == "prunebook: --since main and --only-changed say two things; give one of them\n"


def test_a_quick_run_is_not_recorded(book, fake_book):
    said = call("run", "--record", code=2).stderr
    assert "a run of profile 'quick' judges nothing and is not recorded; use --profile book" in said
    assert fake_book == []


def test_build_and_serve(book, fake_book):
    assert call("build").stdout == f"{book / '_build' / 'html'}\n"
    call("serve", "--port", "8123")
    assert fake_book == [(book, 8123)]


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
    lines = call("new", "2403.03853", "--slug", "shortgpt", *GIVEN).stdout.splitlines()
    assert lines == [
        "papers/shortgpt.ipynb",
        "_toc.yml",
        "lib/prunebook/methods/shortgpt.py",
        "tests/methods/test_shortgpt.py",
        "lib/prunebook/methods/__init__.py",
        "now fill in what `prunebook check shortgpt` lists",
    ]
    assert answers.asked == []
    call("check", "shortgpt", code=2)


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


def test_new_asks_where_there_is_no_network(book, answers):
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
    new = ["new", "2403.03853", "--slug"]
    assert error(*new, "wanda") == (
        "prunebook: papers/wanda.ipynb exists already; choose another --slug, or correct that "
        "notebook"
    )
    assert error("new", "2306.11695", "--slug", "a") == (
        "prunebook: 2306.11695 is in the book already: papers/wanda.ipynb"
    )
    assert error(*new, "a", "--tag", "type=Flat").startswith(
        "prunebook: unknown type value 'Flat'; allowed: "
    )
    assert answers.asked == []
    answers.found = UserError("arXiv has no paper '2403.03853'")
    assert error(*new, "a") == "prunebook: arXiv has no paper '2403.03853'"
    assert not (book / "papers" / "a.ipynb").exists()


def test_add_method(book):
    lines = call("add-method", "scaling").stdout.splitlines()
    assert lines[0] == "papers/scaling.ipynb"
    assert lines[-1] == "now fill in what `prunebook check scaling` lists"
    assert record_of(book, "scaling")["method"] == "scaling"
    assert error("add-method", "wanda") == "prunebook: wanda has a method already: wanda"


def test_preview(book, fake_book, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = book / "_build" / "html" / "papers" / "wanda.html"
    assert call("preview", "wanda", "--no-open").stdout == f"{page}\n"
    assert opened == []
    assert call("preview", "wanda", "--profile", "full").stdout == f"{page}\n"
    assert opened == [page.as_uri()]
    assert fake_book == [(book, ["wanda"], {"profile": profile}) for profile in ("quick", "full")]
    assert call("preview", "scaling", code=1).stdout == ""  # the notebook failed
    assert (
        error("preview", "../index")
        == "prunebook: unknown paper '../index'; allowed: wanda, scaling"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["show"],
        ["prune", "smollm2-135m"],
        ["prune", "smollm2-135m", "wanda", "--sparsity", "half"],
        ["eval"],
        ["eval", "smollm2-135m", "--length", "long"],
        ["run", "--jobs", "0"],
        ["new", "2403.03853"],
        ["new", "2403.03853", "--slug", "a", "--year", "soon"],
        ["new", "2403.03853", "--slug", "a", "--kind", "poster"],
        ["serve", "--port", "0"],
    ],
)
def test_usage_errors_have_exit_code_2(arguments):
    assert "Error: " in call(*arguments, code=2).stderr


def test_reading_commands_import_no_torch(book):
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom prunebook.cli import main\n"
        "commands = ['list'], ['show', 'wanda'], ['check'], ['add-method', 'scaling']\n"
        "codes = [CliRunner().invoke(main, command).exit_code for command in commands]\n"
        "print(codes, sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=book
    )
    assert done.stdout == "[0, 0, 0, 0] []\n"
