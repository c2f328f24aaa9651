"""Verdicts against numbers worked by hand, and what is recorded beside what is shown."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from prunebook.errors import UserError
from prunebook.notebook import claims
from prunebook.notebook.claims import (
    CLAIM_MIME,
    RESULTS_MIME,
    claim,
    claim_speed,
    gap,
    not_testable,
    results,
)
from prunebook.notebook.speedup import Speedup
from prunebook.notebook.tables import claim_html, human_bytes, protocol_line, results_text

TEXTS = {"paper": "7.26", "source": "Table 2", "ours": "30.1"}


@pytest.fixture
def shown(monkeypatch):
    """The MIME bundles that were displayed."""
    bundles = []
    monkeypatch.setattr(claims, "display_bundle", bundles.append)
    return bundles


def test_gap_by_hand():
    lower = np.zeros((2, 4))
    higher = np.array([[1.0, 2, 3, 4], [3, 4, 5, 6]])
    result = gap(lower, higher)
    # differences: windows' means 2 3 4 5 (std sqrt(5/3)), seeds' means 2.5 4.5 (std sqrt(2))
    assert result.mean == 3.5
    assert result.standard_error == pytest.approx(math.sqrt(5 / 3 / 4 + 2 / 2))
    assert result.ratio == pytest.approx(math.exp(3.5))
    assert result.verdict == "holds"


def test_gap_of_one_seed_has_no_seed_term():
    assert gap([[0, 0]], [[1, 3]]).standard_error == pytest.approx(math.sqrt(2) / math.sqrt(2))


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [(2.5, "holds"), (2.0, "tie"), (0.0, "tie"), (-2.0, "tie"), (-2.5, "fails")],
)
def test_verdict_turns_at_two_standard_errors(mean, verdict):
    assert claims.Gap(mean, 1.0).verdict == verdict


def test_pairing_removes_what_the_windows_share():
    windows = np.array([[1.0, 9.0, 4.0, 2.0]])
    assert gap(windows, windows + np.array([[0.10, 0.11, 0.09, 0.10]])).verdict == "holds"


def test_a_quick_run_judges_nothing(shown, monkeypatch):
    monkeypatch.setenv("PRUNEBOOK_PROFILE", "quick")
    result = claim("key", "It holds", verdict=gap([[0, 0]], [[1, 3]]), protocol={}, **TEXTS)
    assert (result.verdict, result.ours) == ("not_judged", "30.1")
    assert result.gap["mean"] == 2.0
    assert "not judged in a quick run" in shown[0]["text/html"]
    with pytest.raises(UserError, match="verdict 'perhaps'"):
        claim("key", "It holds", verdict="perhaps", protocol={}, **TEXTS)
    reason = not_testable("key", "It is fast", paper="2x", source="Table 1", reason="no GPU")
    assert reason.verdict == "not_testable"
    monkeypatch.setenv("PRUNEBOOK_PROFILE", "book")
    assert claim("key", "It holds", verdict=True, protocol={}, **TEXTS).verdict == "holds"


@pytest.mark.parametrize(
    ("lower", "higher", "message"),
    [
        ([[1, 2]], [[1, 2, 3]], r"lower \[1, 2\] and higher \[1, 3\]"),
        ([1, 2], [1, 2], r"lower has shape \[2\]"),
        ([[1]], [[2]], r"windows >= 2"),
        ([[1, math.nan]], [[1, 2]], "lower has 1 values that are not finite"),
        ([[1, 2]], [["a", 2]], "higher must be numbers"),
    ],
)
def test_gap_refuses(lower, higher, message):
    with pytest.raises(UserError, match=message):
        gap(lower, higher)


@pytest.mark.parametrize(
    ("verdict", "word"),
    [(True, "holds"), (np.bool_(False), "fails"), ("tie", "tie"), (claims.Gap(-1, 0.1), "fails")],
)
def test_claim_is_shown_and_recorded(shown, verdict, word):
    record = claim(
        "k", "Wanda < magnitude", **TEXTS, verdict=verdict, protocol={"windows": np.int64(24)}
    )
    (bundle,) = shown
    assert bundle[CLAIM_MIME] == record.to_dict() == json.loads(json.dumps(bundle[CLAIM_MIME]))
    assert bundle[CLAIM_MIME]["verdict"] == word
    assert bundle[CLAIM_MIME]["protocol"] == {"windows": 24}
    assert f"pb-{word}" in bundle["text/html"]
    assert "Wanda &lt; magnitude" in bundle["text/html"]
    assert "paper: 7.26 (Table 2)" in bundle["text/plain"]


def test_claim_records_the_gap(shown):
    claim("k", "s", **TEXTS, verdict=claims.Gap(0.5, 0.1), protocol={})
    assert shown[0][CLAIM_MIME]["gap"] == {
        "mean": 0.5,
        "standard_error": 0.1,
        "ratio": math.exp(0.5),
    }


@pytest.mark.parametrize(
    "verdict", ["not_testable", "true", 1, None, math.nan, claims.Gap(math.nan, 1.0)]
)
def test_claim_refuses_a_verdict(shown, verdict):
    with pytest.raises(UserError, match="claim 'k'"):
        claim("k", "s", **TEXTS, verdict=verdict, protocol={})
    assert shown == []


def test_claim_refuses_an_empty_text(shown):
    with pytest.raises(UserError, match="ours is ''; needs a text"):
        claim("k", "s", **{**TEXTS, "ours": ""}, verdict=True, protocol={})


def test_not_testable_says_why(shown):
    not_testable(
        "k", "2:4 is faster", paper="1.6x", source="Table 5", reason="no sparse tensor cores"
    )
    page = shown[0]["text/html"]
    assert shown[0][CLAIM_MIME]["verdict"] == "not_testable"
    assert "no sparse tensor cores" in page
    assert "not testable here" in page
    assert "<dt>Ours</dt>" not in page


def test_words_of_the_verdicts(shown):
    pages = [
        claim_html(claim("k", "s", **TEXTS, verdict=word, protocol={}).to_dict())
        for word in ("holds", "tie", "fails")
    ]
    for page, words in zip(
        pages, ["✓</span> holds<", "tie (within two", "does not hold at this"], strict=True
    ):
        assert words in page


def test_results_are_json_with_null_for_what_is_not_finite(shown):
    row = {
        "label": "Wanda",
        "perplexity": np.float32(30.5),
        "kl": math.inf,
        "agreement": math.nan,
        "seed": None,
    }
    record = results([row], protocol={"model": "m"})
    data = json.loads(json.dumps(shown[0][RESULTS_MIME], allow_nan=False))
    assert data["rows"] == [
        {"label": "Wanda", "perplexity": 30.5, "kl": None, "agreement": None, "seed": None}
    ]
    assert data["protocol"] == {"model": "m"}
    assert data["versions"]["prunebook"] == "0.1.0"
    assert data == record.to_dict()


def test_results_table_formats_numbers(shown):
    row = {
        "label": "Wanda <50%>",
        "method": "wanda",
        "sparsity": 0.5,
        "perplexity": 1234.567,
        "kl": 0.12345,
        "agreement": 0.876,
        "seconds": 12.34,
        "peak_memory": 1536 * 2**20,
        "parameters": 134515008,
        "extra_thing": True,
    }
    results([row, {"label": "dense"}], protocol={"model": "m", "seeds": 3})
    page = shown[0]["text/html"]
    for text in (
        "Wanda &lt;50%&gt;",
        "50.00%",
        "1,234.57",
        "0.1235",
        "87.60%",
        "12.3",
        "1.5 GiB",
        "134,515,008",
    ):
        assert f">{text}<" in page
    assert "<td>True</td>" in page
    assert page.count("<td>–</td>") == 8
    assert "model m · seeds 3" in page
    assert ">wanda<" not in page


def test_costs_of_size_are_shown_where_sizes_differ():
    dense = {
        "label": "dense",
        "parameters": 20,
        "flops": 35.6e9,
        "kv_cache_bytes": 3 * 2**20,
        "latency": 0.2374,
    }
    alike = results_text([dense, dense | {"label": "zeros"}])
    assert not any(heading in alike for heading in ("GFLOPs", "KV cache", "Latency"))
    text = results_text(
        [dense, dense | {"label": "small", "parameters": 10, "flops": 1.03e9, "latency": None}]
    )
    assert text.splitlines() == [
        "Method  Parameters  GFLOPs  KV cache  Latency [ms]",
        "dense   20          35.60   3.0 MiB   237",
        "small   10          1.03    3.0 MiB   –",
    ]


SPEED = {"paper": "1.5 times", "source": "Table 3", "protocol": {"model": "m"}}


def test_a_claimed_speed_is_judged_by_its_rounds(shown):
    speedup = Speedup((1.25, 1.3, 1.5), flops_ratio=1.5, detail="391 against 512")
    told = "1.30 times as fast (1.25 to 1.50, 3 rounds); 391 against 512"
    result = claim_speed("fast", "It is faster", speedup, at_least=1.2, **SPEED)
    assert (result.verdict, result.ours, result.reason) == ("holds", told, None)
    assert claim_speed("fast", "It is faster", speedup, at_least=1.3, **SPEED).verdict == "tie"
    costly = claim_speed("fast", "Faster", speedup, ours="4 points", requires=False, **SPEED)
    assert (costly.verdict, costly.ours) == ("fails", f"4 points; {told}")


@pytest.mark.parametrize(
    ("speedup", "why"),
    [
        (Speedup((1.3,), busy=True, detail="9 against 8"), "machine was busy: not timed"),
        (Speedup((5.25,), flops_ratio=1.3), "not believed: 5.25 times, where the FLOPs allow 1.3"),
    ],
)
def test_a_refused_speed_is_not_testable_and_shows_no_number(shown, monkeypatch, speedup, why):
    result = claim_speed("fast", "It is faster", speedup, **SPEED)
    assert (result.verdict, result.ours, result.reason) == ("not_testable", None, why)
    monkeypatch.setenv("PRUNEBOOK_PROFILE", "quick")  # which leaves the verdict to a recorded run
    result = claim_speed("fast", "It is faster", speedup, **SPEED)
    assert (result.verdict, result.ours, result.reason) == ("not_judged", why, None)


def test_rows_of_a_busy_machine_have_dashes_and_the_sentence_once(shown):
    rows = [
        {"label": "dense", "seconds": None, "tokens_per_second": 8.0, "machine_busy": False},
        {"label": "Wanda", "seconds": 2.5, "tokens_per_second": None, "machine_busy": True},
        {"label": "RIA", "seconds": None, "tokens_per_second": None, "machine_busy": True},
    ]
    record = results(rows, protocol={"model": "m"})
    assert results_text(rows).splitlines() == [
        "Method  Seconds  Tokens/s, generation",
        "dense   –        8.0",
        "Wanda   2.5      –",
        "RIA     –        –",
        "machine was busy: not timed",
    ]
    page = shown[0]["text/html"]
    assert '<p class="pb-protocol">model m · machine was busy: not timed</p>' in page
    assert page.count("busy") == 1
    assert record.rows[1]["machine_busy"] is True
    assert "busy" not in results_text(rows[:1])


def test_results_text_is_aligned():
    assert results_text([{"label": "a", "kl": 0.5}, {"label": "long", "kl": None}]) == (
        "Method  KL to dense\na       0.5000\nlong    –"
    )


@pytest.mark.parametrize(
    ("rows", "message"), [([], "no rows"), ([{"a": object()}], r"row 0\.a: object")]
)
def test_results_refuse(rows, message):
    with pytest.raises(UserError, match=message):
        results(rows, protocol={})


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2**30, "1.0 GiB"), (2**60, "1048576.0 TiB")],
)
def test_human_bytes(count, text):
    assert human_bytes(count) == text


def test_protocol_line():
    assert protocol_line({"model": "m", "eval_windows": 24, "seeds": [0, 1], "lr": 1e-4}) == (
        "model m · eval windows 24 · seeds 0, 1 · lr 0.0001"
    )


def test_shown_once_in_ipython():
    """As the last value of a cell the returned record adds no second output."""
    code = (
        "from IPython.core.interactiveshell import InteractiveShell as S\n"
        "from IPython.utils.capture import capture_output\n"
        "shell = S.instance()\n"
        "with capture_output() as captured:\n"
        '    shell.run_cell("import prunebook as pb\\n'
        "pb.not_testable('k', 's', paper='p', source='t', reason='r')\")\n"
        "assert len(captured.outputs) == 1, captured.outputs\n"
        f"assert {CLAIM_MIME!r} in captured.outputs[0].data, captured.outputs[0].data\n"
        "import sys\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
