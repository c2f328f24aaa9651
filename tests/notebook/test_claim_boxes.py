"""What the box of a claim says."""

import pytest

from prunebook.notebook.claim_boxes import claim_html, model_words, run_words

CLAIM = {
    "key": "k",
    "statement": "a < b",
    "paper": "7",
    "source": "Table 1",
    "ours": "8",
    "protocol": {"model": "m"},
}


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("holds", "✓</span> holds here<"),
        ("tie", "≈</span> tie<"),
        ("undertrained", "◔</span> not given its training<"),
        ("fails", "✗</span> does not hold here<"),
        ("not_judged", "<dt>This quick run</dt><dd>8</dd>"),
    ],
)
def test_words_of_the_verdicts(verdict, words):
    assert words in claim_html(CLAIM | {"verdict": verdict})


def test_a_claim_of_ours_says_so_and_a_recorded_one_of_which_run():
    page = claim_html(CLAIM | {"verdict": "holds", "origin": "paper"})
    assert "Asked by" not in page
    page = claim_html(CLAIM | {"verdict": "holds", "origin": "ours", "recorded": "Recorded <1>"})
    assert "<dt>Asked by</dt><dd>this book; no such statement of the paper was seen</dd>" in page
    assert '<p class="pb-protocol pb-recorded">Recorded &lt;1&gt;</p>' in page
    assert page.endswith('<p class="pb-protocol">model m</p></section>')


def test_the_verdicts_of_all_runs_stand_in_the_box():
    run = {"profile": "book", "device": "CPU", "model": "m", "windows": None, "version": 2}
    gpu = run | {"profile": "full", "device": "H200", "windows": 64}
    verdicts = [gpu | {"verdict": "holds"}, run | {"verdict": "fails", "version": 1}]
    words = ["full, H200, 64 windows: holds here", "book, CPU, earlier rule: does not hold here"]
    assert run_words(verdicts) == words
    page = claim_html(CLAIM | {"verdict": "holds", "verdicts": verdicts})
    assert f"<dt>All runs</dt><dd>{'; '.join(words)}</dd>" in page
    assert "All runs" not in claim_html(CLAIM | {"verdict": "holds", "verdicts": verdicts[:1]})
    other = verdicts[1] | {"model": "n", "version": 2}
    assert run_words([verdicts[0], other])[1] == "book, CPU, n: does not hold here"


def test_a_claim_tells_on_how_many_models_it_holds():
    run = {"profile": "book", "device": "CPU", "windows": 32, "version": 2}
    first = run | {"model": "m", "verdict": "holds"}
    smaller = run | {"model": "m", "verdict": "fails"}  # of the runs on one model the first counts
    second = run | {"model": "n", "verdict": "tie"}
    assert model_words([first, smaller, second]) == "holds on 1 of 2 models"
    assert model_words([first, second | {"verdict": "holds"}]) == "holds on 2 of 2 models"
    assert model_words([smaller, second]) == "holds on 0 of 2 models"
    assert model_words([first, smaller, run | {"model": None, "verdict": "fails"}]) == ""
    page = claim_html(CLAIM | {"verdict": "holds", "verdicts": [first, second]})
    assert "<dt>Models</dt><dd>holds on 1 of 2 models</dd><dt>All runs</dt>" in page
    assert "Models" not in claim_html(CLAIM | {"verdict": "holds", "verdicts": [first, smaller]})


def test_the_box_tells_the_degrees_of_freedom_and_what_a_tie_leaves_open():
    gap = {
        "mean": 0.02,
        "half_width": 0.01,
        "unit": "nats",
        "degrees_of_freedom": 2.44,
        "windows": 32,
        "draws": 3,
        "this_draw_only": False,
        "margin": 0.015,
        "detectable": 0.03,
    }
    page = claim_html(CLAIM | {"verdict": "tie", "gap": gap})
    assert "(95 % interval; 3 draws, 32 windows; 2.4 degrees of freedom); no difference is" in page
    assert "; there is a difference, and whether it is below that is open<" in page
    page = claim_html(CLAIM | {"verdict": "tie", "gap": gap | {"mean": 0.008}})
    assert "; neither a difference nor its absence is shown<" in page
    page = claim_html(CLAIM | {"verdict": "holds", "gap": gap | {"mean": 0.001}})
    assert "is open" not in page
    assert "absence" not in page
