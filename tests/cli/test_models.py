"""The commands on models, on a model of two blocks: what they refuse, measure, print and save."""

import json
import re

import pytest
from tests.cli.calling import call, error

from prunebook.catalog import method_names


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("damping", "--option 'damping' must be key=value, e.g. --option damping=0.05"),
        ("a b=1", "--option 'a b=1' must be key=value, e.g. --option damping=0.05"),
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
    cells = [re.split(r"\s{2,}", line) for line in lines]
    assert cells[0] == ["Method", "Paper", "Data", "Sparsity of", "Options"]
    rows = {name: row for name, *row in cells[1:]}
    of_groups = "the weights of each comparison group"
    assert rows["magnitude"] == [
        "essential-sparsity",
        "none",
        of_groups,
        "sparsity pattern scope=layer",
    ]
    assert rows["wanda"][:3] == ["wanda", "calibration", of_groups]
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
