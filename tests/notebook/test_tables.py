"""How results and claims look."""

import pytest

from prunebook.notebook.tables import (
    human_bytes,
    protocol_line,
    results_text,
)


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


def test_results_text_is_aligned():
    assert results_text([{"label": "a", "kl": 0.5}, {"label": "long", "kl": None}]) == (
        "Method  KL to dense\na       0.5000\nlong    –"
    )


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
