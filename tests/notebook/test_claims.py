"""Claims: verdicts, and what is recorded beside what is shown."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from tests.notebook.example_gaps import a_gap

from prunebook.errors import UserError
from prunebook.notebook.bounds import Bound
from prunebook.notebook.claims import (
    CLAIM_MIME,
    check,
    check_rest,
    claim,
    claim_speed,
    not_testable,
)
from prunebook.notebook.gaps import gap
from prunebook.notebook.results import results
from prunebook.notebook.speedup import Speedup
from prunebook.notebook.stated import CLAIMS_VARIABLE

PROTOCOL = {"model": "m"}
TEXTS = {"paper": "7.26", "source": "Table 2", "ours": "30.1"}


def test_a_quick_run_judges_nothing(shown, monkeypatch):
    monkeypatch.setenv("PRUNEBOOK_PROFILE", "quick")
    result = claim("key", "It holds", verdict=gap([[0, 0]], [[1, 3]]), protocol=PROTOCOL, **TEXTS)
    assert (result.verdict, result.ours) == ("not_judged", "30.1")
    assert result.gap["mean"] == 2.0
    assert "not judged in a quick run" in shown[0]["text/html"]
    with pytest.raises(UserError, match="verdict 'perhaps'"):
        claim("key", "It holds", verdict="perhaps", protocol=PROTOCOL, **TEXTS)
    reason = not_testable("key", "It is fast", paper="2x", source="Table 1", reason="no GPU")
    assert reason.verdict == "not_testable"
    monkeypatch.setenv("PRUNEBOOK_PROFILE", "book")
    assert claim("key", "It holds", verdict=True, protocol=PROTOCOL, **TEXTS).verdict == "holds"


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (True, "holds"),
        (np.bool_(False), "fails"),
        ("tie", "tie"),
        (a_gap(-1.0, 0.1), "fails"),
        (Bound(1.5, 1.0, 2.0, 20, at_least=0.9), "holds"),
    ],
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


@pytest.mark.parametrize(
    "verdict", ["not_testable", "true", 1, None, math.nan, a_gap(math.nan), a_gap(math.inf)]
)
def test_claim_refuses_a_verdict(shown, verdict):
    with pytest.raises(UserError, match="claim 'k'"):
        claim("k", "s", **TEXTS, verdict=verdict, protocol=PROTOCOL)
    assert shown == []


def test_claim_refuses_an_empty_text(shown):
    with pytest.raises(UserError, match="ours is ''; needs a text"):
        claim("k", "s", **{**TEXTS, "ours": ""}, verdict=True, protocol=PROTOCOL)


def test_not_testable_says_why(shown):
    not_testable(
        "k", "2:4 is faster", paper="1.6x", source="Table 5", reason="no sparse tensor cores"
    )
    page = shown[0]["text/html"]
    assert shown[0][CLAIM_MIME]["verdict"] == "not_testable"
    assert "no sparse tensor cores" in page
    assert "not testable" in page
    assert "<dt>Ours</dt>" not in page


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


STATED = [
    {"key": "better", "origin": "paper", "statement": "A < B", "number": "7", "source": "Table 2"},
    {"key": "fast", "origin": "ours", "statement": "A is fast", "number": "-", "source": "none"},
    {
        "key": "large",
        "origin": "paper",
        "statement": "It holds for large models",
        "number": "70B: 3.98",
        "source": "Table 1",
        "not_testable": "too large",
    },
]


@pytest.fixture
def stated(monkeypatch):
    """The claims of a record, as `prunebook run` hands them to a page."""
    monkeypatch.setenv(CLAIMS_VARIABLE, json.dumps({"claims": STATED}))


def test_a_check_records_what_a_claim_does_and_whose_it_is(shown, stated):
    protocol = {"windows": 24}
    verdict = a_gap(0.5, 0.1)
    checked = check("better", ours="30.1", verdict=verdict, protocol=protocol)
    written = claim(
        "better",
        "A < B",
        paper="7",
        source="Table 2",
        ours="30.1",
        verdict=verdict,
        protocol=protocol,
    )
    assert checked.to_dict() == written.to_dict() | {"origin": "paper"}
    assert shown[0][CLAIM_MIME] == checked.to_dict()
    assert shown[0]["text/html"] == shown[1]["text/html"]


def test_the_protocol_is_that_of_the_last_table(shown, stated):
    with pytest.raises(UserError, match=r"^claim 'better': no protocol; show a table first"):
        check("better", ours="30.1", verdict=True)
    results([{"kl": 0.5}], protocol={"windows": 24})
    assert check("better", ours="30.1", verdict=True).protocol == {"windows": 24}
    other = check("better", ours="30.1", verdict=True, protocol={"windows": 8})
    assert other.protocol == {"windows": 8}
    assert check("better", ours="30.1", verdict=True).protocol == {"windows": 24}


def test_a_checked_speed(shown, stated):
    speedup = Speedup((1.25, 1.3, 1.5), flops_ratio=1.5)
    result = check("fast", verdict=speedup, at_least=1.2, protocol=PROTOCOL)
    assert (result.verdict, result.origin) == ("holds", "ours")
    assert result.ours == "1.30 times as fast (1.25 to 1.50, 3 rounds)"
    costly = check("fast", ours="4 points", verdict=speedup, requires=False, protocol=PROTOCOL)
    assert costly.verdict == "fails"
    refused = check("fast", verdict=Speedup((5.25,), flops_ratio=1.3), protocol=PROTOCOL)
    assert refused.verdict == "not_testable"
    assert "this book" in shown[0]["text/html"]


def test_what_is_not_testable_needs_its_key_alone(shown, stated):
    result = check("large")
    assert (result.verdict, result.reason, result.origin) == ("not_testable", "too large", "paper")
    result = check("better", not_testable="no GPU here")
    assert (result.verdict, result.reason) == ("not_testable", "no GPU here")
    shown.clear()
    check_rest()
    assert [bundle[CLAIM_MIME]["key"] for bundle in shown] == ["large"]


def test_the_paper_s_number_can_be_computed(shown, stated):
    result = check(
        "better", ours="1", verdict=True, protocol=PROTOCOL, paper="7.01, by its own law"
    )
    assert result.paper == "7.01, by its own law"


@pytest.mark.parametrize(
    ("key", "options", "message"),
    [
        ("worse", {"verdict": True}, "'worse' is not in the record; allowed: better, fast, large"),
        ("better", {}, "needs a verdict, or a reason why it is not testable; not both"),
        ("better", {"ours": "1", "verdict": "perhaps"}, "verdict 'perhaps'; allowed: a gap"),
        ("better", {"verdict": True}, "ours is ''; needs a text"),
        ("large", {"verdict": True}, "needs a verdict, or a reason"),
        ("better", {"verdict": True, "not_testable": "x"}, "needs a verdict, or a reason"),
        ("better", {"not_testable": " "}, "reason is ' '; needs a text"),
        (
            "better",
            {"ours": "1", "verdict": True, "requires": False},
            "requires go with a speed-up",
        ),
        ("better", {"ours": "1", "verdict": "holds", "at_least": 2}, "requires go with a speed-up"),
        ("better", {"not_testable": "x", "at_least": 2}, "requires go with a speed-up"),
        ("better", {"ours": "1", "verdict": True, "paper": ""}, "paper is ''; needs a text"),
        (["better"], {"ours": "1", "verdict": True}, "key is .'better'.; needs a text"),
    ],
)
def test_check_refuses(shown, stated, key, options, message):
    with pytest.raises(UserError, match=message):
        check(key, protocol=PROTOCOL, **options)
    assert shown == []


@pytest.mark.parametrize("verdict", [True, Speedup((1.5,)), Speedup((), busy=True)])
@pytest.mark.parametrize(
    ("protocol", "what"), [(["a"], "list is"), ("abc", "str is"), ({}, "an empty protocol is")]
)
def test_check_refuses_what_is_no_protocol(shown, stated, verdict, protocol, what):
    message = f"^claim 'better': protocol: {what} not allowed; needs a dict of what"
    with pytest.raises(UserError, match=message):
        check("better", ours="1", verdict=verdict, protocol=protocol)
    assert shown == []


def test_a_protocol_holds_no_nan(shown, stated):
    protocol = {"rate": math.nan, "seeds": (1, 2)}
    record = check("better", ours="1", verdict=True, protocol=protocol)
    assert record.protocol == {"rate": None, "seeds": [1, 2]}


def test_a_quick_run_judges_no_check(shown, stated, monkeypatch):
    monkeypatch.setenv("PRUNEBOOK_PROFILE", "quick")
    assert check("better", ours="1", verdict=True, protocol=PROTOCOL).verdict == "not_judged"
    assert check("large").verdict == "not_testable"
