"""Measured rows: what is recorded beside the table."""

import json
import math

import numpy as np
import pytest

from prunebook.errors import UserError
from prunebook.notebook.results import RESULTS_MIME, current_protocol, results, use_protocol
from prunebook.notebook.tables import results_text


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


@pytest.mark.parametrize(
    ("rows", "message"), [([], "no rows"), ([{"a": object()}], r"row 0\.a: object")]
)
def test_results_refuse(rows, message):
    with pytest.raises(UserError, match=message):
        results(rows, protocol={"model": "m"})


class TwoModels:
    """A comparison of two models, as `results` reads one."""

    def __init__(self):
        self.protocol = {"model": "m"}

    def rows(self):
        return [{"label": "dense", "perplexity": 2.0}]

    def losses(self):
        return {"dense": [[np.float32(0.5), 0.75]]}


def test_results_of_a_comparison_have_its_rows_protocol_and_losses(shown):
    results(TwoModels())
    record = shown[0][RESULTS_MIME]
    assert record["rows"] == [{"label": "dense", "perplexity": 2.0}]
    assert record["protocol"] == {"model": "m"}
    assert record["losses"] == {"dense": [[0.5, 0.75]]}
    assert "0.75" not in shown[0]["text/html"]


def test_results_of_rows_may_have_losses(shown):
    results([{"a": 1}], protocol={"model": "m"}, losses={"a": [[1.0]]})
    assert shown[0][RESULTS_MIME]["losses"] == {"a": [[1.0]]}


@pytest.mark.parametrize(
    ("protocol", "what"), [([1], "list is"), ("abc", "str is"), ({}, "an empty protocol is")]
)
def test_what_is_no_protocol_is_refused(shown, protocol, what):
    with pytest.raises(UserError, match=f"^use_protocol: {what} not allowed; needs a dict of"):
        use_protocol(protocol)
    with pytest.raises(UserError, match=f"^results: protocol: {what} not allowed; needs a dict"):
        results([{"kl": 0.5}], protocol=protocol)
    assert shown == []


def test_a_table_sets_the_protocol_of_the_checks_that_follow(shown):
    results([{"kl": 0.5}], protocol={"windows": np.int64(24)})
    assert current_protocol("x") == {"windows": 24}
    use_protocol({"windows": 8})
    assert current_protocol("x") == {"windows": 8}


def test_before_the_first_table_there_is_no_protocol():
    with pytest.raises(UserError, match=r"^claim 'k': no protocol; show a table first"):
        current_protocol("claim 'k'")
