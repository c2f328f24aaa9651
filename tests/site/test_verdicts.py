"""Which verdict a page shows: that of the run with the most power, beside those of all others."""

from types import SimpleNamespace

import nbformat
import pytest
from tests.runs.recorded import earlier, earlier_run, write
from tests.runs.recorded import record as recorded_file
from tests.small_book import STATED

from prunebook.catalog import StatedClaim
from prunebook.notebook.claims import CLAIM_MIME
from prunebook.runs.records import Run
from prunebook.site.verdicts import (
    contradictions,
    counts_of,
    is_own,
    recorded_counts,
    shown_claims,
    with_verdicts,
)

ORIGIN = "Recorded on 2026-11-30 (profile book, one CPU, commit abc)."


def claim(key, verdict, ours="1", **fields):
    return {
        "key": key,
        "statement": f"The {key}",
        "paper": "7",
        "source": "Table 1",
        "ours": ours,
        "verdict": verdict,
        "protocol": {"model": "m", "evaluation": "2 x 512 tokens"},
        "reason": None,
        "gap": None,
        **fields,
    }


def run(*claims, profile="book", version=2, file="record.json", model="m"):
    return Run(
        "alpha",
        "Alpha",
        profile,
        "one CPU",
        "2026-11-30",
        "abc",
        {},
        [{"rows": [], "protocol": {"model": model}}],
        list(claims),
        version=version,
        file=file,
    )


def gap(mean, half_width=0.1, windows=32):
    return {"mean": mean, "half_width": half_width, "windows": windows}


def stated(*claims):
    """A record of a paper that states these claims."""
    return SimpleNamespace(claims=[StatedClaim.model_validate(each) for each in claims])


def test_a_verdict_on_record_replaces_one_that_was_not_judged():
    (shown,) = shown_claims([claim("a", "not_judged")], [run(claim("a", "holds", ours="30"))])
    assert (shown["verdict"], shown["ours"], shown["recorded"]) == ("holds", "30", ORIGIN)
    assert [each["windows"] for each in shown["verdicts"]] == [2]


def test_what_is_not_on_record_stays():
    own = [claim("a", "not_testable"), claim("b", "not_judged")]
    assert shown_claims(own, [run(claim("c", "tie"))])[:2] == own
    assert shown_claims(own, []) == own


def test_the_record_goes_before_what_a_quick_run_could_not_test():
    shown = shown_claims([claim("a", "not_testable")], [run(claim("a", "fails"))])
    assert [(item["verdict"], item["recorded"]) for item in shown] == [("fails", ORIGIN)]


def test_the_first_run_that_judges_counts_and_all_verdicts_stand_beside_it():
    runs = [
        run(claim("a", "not_testable", reason="busy"), profile="gpu"),
        run(claim("a", "holds", gap=gap(0.3, windows=64)), profile="full"),
        run(claim("a", "fails"), version=1, file="old.json"),
    ]
    (shown,) = shown_claims([], runs)
    assert shown["verdict"] == "holds"
    verdicts = [
        (each["profile"], each["verdict"], each["windows"], each["version"])
        for each in shown["verdicts"]
    ]
    # The earlier rule does not count beside the present one.
    assert verdicts == [("full", "holds", 64, 2)]
    (untested,) = shown_claims([], runs[:1])
    assert (untested["verdict"], untested["verdicts"]) == ("not_testable", [])


def test_a_run_of_this_build_has_no_remark():
    (shown,) = shown_claims([claim("a", "holds")], [run(claim("a", "holds"), file="")])
    assert "recorded" not in shown


def test_a_verdict_of_version_1_says_under_which_rule():
    (shown,) = shown_claims([], [run(claim("a", "tie"), version=1)])
    assert shown["recorded"] == (
        f"{ORIGIN} Recorded under the earlier rule: two standard errors, 2 x 512 tokens."
    )


def test_another_model_decides_nothing_beside_the_first_one():
    other = run(claim("a", "holds", protocol={"model": "n"}), profile="second", model="n")
    # A claim that could not be tested has no protocol of its own.
    untested = claim("a", "not_testable", ours=None, reason="r", protocol={})
    (shown,) = shown_claims([], [run(untested), other])
    assert shown["verdict"] == "not_testable"
    assert [each["model"] for each in shown["verdicts"]] == ["n"]
    smaller = run(claim("a", "holds"), profile="book")
    (shown,) = shown_claims([], [run(untested, profile="full"), smaller])
    assert shown["verdict"] == "holds"
    (shown,) = shown_claims([], [run(untested), run(claim("a", "fails"), version=1)])
    assert (shown["verdict"], shown["verdicts"]) == ("not_testable", [])
    # The earlier rule counts as long as the present one has not judged the same model.
    (shown,) = shown_claims([], [run(claim("a", "fails"), version=1), other])
    assert shown["verdict"] == "fails"
    assert [each["verdict"] for each in shown["verdicts"]] == ["fails", "holds"]
    (shown,) = shown_claims([], [other])
    assert shown["verdict"] == "holds"


def test_a_changed_record_is_told():
    page = claim("a", "not_judged", statement="The  a", origin="ours")
    (shown,) = shown_claims(
        [page], [run(claim("a", "tie"))], changes={"record.json": "x: 2, was 1"}
    )
    assert shown["origin"] == "ours"
    assert shown["recorded"] == f"{ORIGIN} Changed since it was recorded: x: 2, was 1."


@pytest.mark.parametrize("version", [1, 2])
def test_a_verdict_on_another_statement_is_none_on_this_one(version):
    page = claim("a", "not_judged", statement="Said anew")
    record = run(claim("a", "holds"), version=version)
    (shown,) = shown_claims([page], [record])
    assert (shown["statement"], shown["verdict"]) == ("Said anew", "not_judged")
    assert "recorded" not in shown
    # The same without a page that was run: the paper's record states the claim anew.
    anew = STATED[0] | {"key": "a", "statement": "Said anew"}
    (shown,) = shown_claims([], [record], stated(anew))
    assert (shown["statement"], shown["verdict"]) == ("Said anew", "not_judged")


def test_the_earlier_rule_did_not_know_of_missing_training():
    page = claim("a", "not_judged", undertrained="2 of 42,000 steps")
    for verdict, shown_as in (("fails", "undertrained"), ("tie", "tie"), ("holds", "holds")):
        (shown,) = shown_claims([page], [run(claim("a", verdict), version=1)])
        assert shown["verdict"] == shown_as
    (shown,) = shown_claims([page], [run(claim("a", "fails"))])
    assert shown["verdict"] == "fails"


def test_claims_that_only_a_record_has_follow():
    shown = shown_claims([claim("b", "not_judged")], [run(claim("a", "tie"), claim("b", "holds"))])
    assert [(item["key"], item["verdict"]) for item in shown] == [("b", "holds"), ("a", "tie")]


def test_the_papers_record_has_the_last_word_on_what_is_claimed():
    ruled_out = STATED[1] | {"not_testable": "its table was not seen"}
    said = {"statement": STATED[0]["statement"]}
    shown = shown_claims(
        [],
        [run(claim("gone", "holds"), claim("k1", "holds", **said), claim("k2", "fails"))],
        stated(STATED[0], ruled_out),
    )
    assert [(item["key"], item["verdict"], item["origin"]) for item in shown] == [
        ("k1", "holds", "paper"),
        ("k2", "not_testable", "ours"),
    ]
    assert shown[1]["reason"] == "its table was not seen"
    # A claim that no run has judged has no verdict to show.
    assert shown_claims([], [], stated(STATED[0])) == []


def test_only_the_papers_own_claims_are_counted():
    claims = [claim("a", "holds", origin=origin) for origin in ("paper", None, "ours", "reviewers")]
    assert [is_own(each) for each in claims] == [True, True, False, False]
    assert counts_of(claims) == {"holds": 2}


def test_counts_on_record_need_no_run(book):
    book.add("alpha", "1", claims=STATED)
    write(book.root, "a", earlier(earlier_run()))
    write(book.root, "broken", "{")
    assert recorded_counts(book.root) == {"alpha": {"holds": 1}}
    write(book.root, "b", recorded_file(claims=[]))
    assert recorded_counts(book.root) == {"alpha": {"holds": 1}}


@pytest.mark.parametrize(
    ("mean", "changes", "protocol", "version", "count"),
    [
        (0.5, {}, {"device": "CPU"}, 2, 1),
        (0.35, {}, {"device": "CPU"}, 2, 1),
        (0.34, {}, {"device": "CPU"}, 2, 0),
        (0.5, {"record.json": "x"}, {"device": "CPU"}, 2, 0),
        (0.5, {}, {"windows": 64}, 2, 0),
        (0.5, {}, {}, 1, 0),
    ],
)
def test_a_run_that_contradicts_a_record_beyond_noise(mean, changes, protocol, version, count):
    own = run(claim("a", "holds", gap=gap(mean), protocol={}), file="")
    record = run(claim("a", "tie", gap=gap(0.2), protocol=protocol), claim("b", "tie"))
    record = run(*record.claims, version=version)
    lines = contradictions("alpha", [own, record], changes)
    assert len(lines) == count
    if mean == 0.5 and count:
        assert lines == [
            "papers/alpha: claim 'a': this build's run has +0.5000 ± 0.1000, record.json has "
            "+0.2000 ± 0.1000; they differ by more than noise"
        ]


def notebook(*claims):
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell("# Alpha")]
    for item in claims:
        cell = v4.new_code_cell("pb.claim()")
        data = {CLAIM_MIME: item, "text/html": "old", "text/plain": "old"}
        cell.outputs = [v4.new_output("display_data", data)]
        cells.append(cell)
    return v4.new_notebook(cells=[*cells, v4.new_code_cell("1")])


def test_boxes_of_a_page_show_the_verdicts_given():
    source = notebook(claim("a", "not_judged"), claim("b", "not_judged"))
    before = nbformat.writes(source)
    shown = shown_claims(
        [claim("a", "not_judged"), claim("b", "not_judged")],
        [run(claim("b", "fails"), claim("z", "tie")), run(claim("b", "holds"), file="b.json")],
    )
    page = with_verdicts(source, shown)
    assert nbformat.writes(source) == before
    first, second = (cell.outputs for cell in page.cells[1:3])
    assert "not judged in a quick run" in first[0].data["text/html"]
    assert "This quick run" in first[0].data["text/html"]
    assert len(first) == 1
    # The claim that only the record has follows the last box.
    assert [output.data[CLAIM_MIME]["key"] for output in second] == ["b", "z"]
    html = second[0].data["text/html"]
    assert "does not hold here" in html
    assert "book, one CPU, 2 windows: holds here" in html
    assert f'<p class="pb-protocol pb-recorded">{ORIGIN}</p>' in html
    assert page.cells[3].outputs == []
    nbformat.validate(page)


def test_a_page_without_boxes_gets_none():
    page = with_verdicts(notebook(), [claim("a", "holds")])
    assert [cell.get("outputs") for cell in page.cells] == [None, []]
