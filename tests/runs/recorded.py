"""Recorded runs that tests put in by hand."""

import json

CLAIM = {
    "key": "k1",
    "statement": "It is better",
    "paper": "7.26",
    "source": "Table 2",
    "ours": "30.5",
    "verdict": "holds",
    "protocol": {"model": "m", "evaluation": "32 x 512 tokens"},
    "reason": None,
    "gap": None,
    "origin": "paper",
}
ROW = {"label": "Tiny", "perplexity": 30.5}
TABLE = {
    "rows": [ROW],
    "protocol": {"model": "m", "device": "CPU, 2 threads"},
    "versions": {"torch": "2"},
    "date": "2026-11-30",
    "commit": "abc",
}


def record(slug="alpha", profile="book", **fields):
    """The content of a file of version 2, with `fields` in place of some."""
    return {
        "kind": "prunebook-record",
        "version": 2,
        "slug": slug,
        "short": slug.title(),
        "profile": profile,
        "device": "CPU, 2 threads",
        "date": "2026-11-30",
        "commit": "abc",
        "versions": {"torch": "2"},
        "results": [TABLE],
        "claims": [CLAIM],
        "quick": [ROW],
        **fields,
    }


def earlier(*runs):
    """The content of a file of version 1."""
    return {"kind": "prunebook-runs", "version": 1, "runs": list(runs)}


def earlier_run(slug="alpha", profile="full", date="2026-01-01"):
    """A run in a file of version 1."""
    claim = {name: value for name, value in CLAIM.items() if name != "origin"}
    return {
        "slug": slug,
        "short": slug.title(),
        "profile": profile,
        "results": [TABLE | {"date": date}],
        "claims": [claim],
    }


def write(root, name, content):
    """Write a file into the folder of records."""
    folder = root / "benchmarks" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    text = content
    if not isinstance(content, str):
        text = json.dumps(content)
    (folder / f"{name}.json").write_text(text)
