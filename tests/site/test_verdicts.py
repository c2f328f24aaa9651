"""Which verdicts a page shows: those of its own run, or those on record."""

import nbformat

from prunebook.notebook.claims import CLAIM_MIME
from prunebook.runs.records import Run
from prunebook.site.verdicts import shown_claims, with_verdicts

RESULT = {
    "rows": [],
    "protocol": {"model": "m", "device": "one CPU"},
    "versions": {},
    "date": "2026-11-30",
    "commit": "abc",
}
ORIGIN = "Recorded on 2026-11-30 (profile book, one CPU, commit abc)."


def claim(key, verdict, ours="1"):
    return {
        "key": key,
        "statement": f"The {key}",
        "paper": "7",
        "source": "Table 1",
        "ours": ours,
        "verdict": verdict,
        "protocol": {"windows": 2},
        "reason": None,
        "gap": None,
    }


def run(*claims):
    return Run("alpha", "Alpha", "book", [RESULT], list(claims))


def test_a_verdict_on_record_replaces_one_that_was_not_judged():
    recorded = claim("a", "holds", ours="30")
    shown = shown_claims([claim("a", "not_judged")], run(recorded))
    assert shown == [{**recorded, "recorded": ORIGIN}]


def test_what_is_not_on_record_stays():
    own = [claim("a", "not_testable"), claim("b", "not_judged")]
    assert shown_claims(own, run(claim("c", "tie")))[:2] == own
    assert shown_claims(own, None) == own


def test_the_record_goes_before_what_a_quick_run_could_not_test():
    shown = shown_claims([claim("a", "not_testable")], run(claim("a", "fails")))
    assert [(item["verdict"], item["recorded"]) for item in shown] == [("fails", ORIGIN)]


def test_claims_that_only_the_record_has_follow():
    shown = shown_claims([claim("b", "not_judged")], run(claim("a", "tie"), claim("b", "holds")))
    assert [(item["key"], item["verdict"]) for item in shown] == [("b", "holds"), ("a", "tie")]
    assert [item["key"] for item in shown_claims([], run(claim("a", "tie")))] == ["a"]


def test_a_run_without_a_commit_or_device_says_what_it_has():
    bare = {**RESULT, "protocol": {}, "commit": None}
    assert Run("a", "A", "full", [bare], []).origin == "Recorded on 2026-11-30 (profile full)."


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
        run(claim("b", "fails"), claim("z", "tie")),
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
    assert "does not hold at this scale" in html
    assert f'<p class="pb-protocol pb-recorded">{ORIGIN}</p>' in html
    assert page.cells[3].outputs == []
    nbformat.validate(page)


def test_a_page_without_boxes_gets_none():
    page = with_verdicts(notebook(), [claim("a", "holds")])
    assert [cell.get("outputs") for cell in page.cells] == [None, []]
