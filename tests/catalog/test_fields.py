"""What the fields of a record may hold: the patterns of texts, and no hidden characters."""

import re

import pytest
from tests.catalog.checking import assert_refused

from prunebook.catalog.fields import PATTERNS


@pytest.mark.parametrize(
    ("words", "texts", "others"),
    [
        ("lower-case letters", ["a", "2-of-4"], ["A", "-a", "a-", "a--b", "a_b", ""]),
        (
            "an arXiv id",
            ["2306.11695", "0704.0001", "2312.00001"],
            ["2306.11695v1", "306.11695", "2306.116", "2313.11695", "2399.11695", "2300.11695"],
        ),
        ("an OpenReview forum id", ["PxoFut3dWW", "-a_"], ["a b", "a?id=b", ""]),
        ("an address", ["https://x.org/a?b#c"], ["ftp://x.org", "https://x<y", "https://a b"]),
        ("a module of the library", ["prunebook.a.b1"], ["prunebook.a", "prunebook.A.b", "a.b.c"]),
        ("title, venue, code", ["title", "tags.type"], ["tags.size", "tags", "year"]),
    ],
)
def test_patterns(words, texts, others):
    (pattern,) = [pattern for pattern, said in PATTERNS.items() if said.startswith(words)]
    assert [text for text in texts + others if re.search(pattern, text)] == texts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"slug": "Wanda 1"},
            "slug: 'Wanda 1' must be lower-case letters, digits and single dashes",
        ),
        ({"arxiv": "v1"}, "arxiv: 'v1' must be an arXiv id like 2306.11695"),
        ({"arxiv": "2313.11695"}, "arxiv: '2313.11695' must be an arXiv id like 2306.11695"),
        ({"openreview": "a b"}, "openreview: 'a b' must be an OpenReview forum id like PxoFut3dWW"),
        (
            {"code.url": "git@x"},
            "code.url: 'git@x' must be an address that starts with http:// or https://, without "
            "quotes or brackets",
        ),
        (
            {"challenge": "Wanda_2024"},
            "challenge: 'Wanda_2024' must be lower-case letters, digits and single dashes",
        ),
        (
            {"links": [{"label": "x", "url": "javascript:alert(1)"}]},
            "links[0].url: 'javascript:alert(1)' must be an address that starts with http:// or "
            "https://, without quotes or brackets",
        ),
        (
            {"code.url": "https://x.org/>)<script>"},
            "code.url: 'https://x.org/>)<script>' must be an address that starts with http:// or "
            "https://, without quotes or brackets",
        ),
        (
            {"title": "a\u202eb"},
            "title: 'a\\u202eb' holds the invisible character U+202E; remove it",
        ),
        (
            {"authors": ["A", "b\u2066"]},
            "authors: ['A', 'b\\u2066'] holds the invisible character U+2066; remove it",
        ),
        (
            {"tags.data.detail": "a\x1bb"},
            "tags.data.detail: 'a\\x1bb' holds the invisible character U+001B; remove it",
        ),
        (
            {"takeaway": "a\uffffb"},
            "takeaway: 'a\\uffffb' holds the invisible character U+FFFF; remove it",
        ),
        (
            {"corrections": [{"field": "tags.size", "listed": "x", "reason": "y"}]},
            "corrections[0].field: 'tags.size' must be title, venue, code, links or a tag field as "
            "tags.type",
        ),
    ],
)
def test_a_text_that_is_not_allowed_is_refused(changes, message):
    assert_refused(changes, message)
