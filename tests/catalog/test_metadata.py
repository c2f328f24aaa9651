"""Answers of arXiv and OpenReview, from a server on this machine."""

import http.server
import json
import threading
import time

import pytest

from prunebook.catalog.metadata import Metadata, NoAnswerError, fetch_metadata
from prunebook.errors import UserError

ATOM = """\
<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:arxiv="http://arxiv.org/schemas/atom">
  <title type="html">ArXiv Query: id_list=2306.11695</title>
  <id>http://arxiv.org/api/QpbCGbhLxpG3CRIqGLXHD0nGD+E</id>
  <entry>
    <id>http://arxiv.org/abs/2306.11695v3</id>
    <updated>2024-05-06T17:59:59Z</updated>
    <published>2023-06-20T17:58:12Z</published>
    <title>A Simple and Effective Pruning Approach
  for Large Language Models</title>
    <summary>  As their size increases, ... </summary>
    <author><name>Mingjie Sun</name></author>
    <author><name>J. Zico Kolter</name><arxiv:affiliation>CMU</arxiv:affiliation></author>
    <arxiv:comment>Published as a conference paper at ICLR 2024</arxiv:comment>
    <link href="http://arxiv.org/abs/2306.11695v3" rel="alternate" type="text/html"/>
    <category term="cs.CL" scheme="http://arxiv.org/schemas/atom"/>
  </entry>
</feed>
"""
EMPTY = '<feed xmlns="http://www.w3.org/2005/Atom"><title>ArXiv Query</title></feed>'
ERROR = (
    "<feed "
    'xmlns="http://www.w3.org/2005/Atom"><entry><id>http://arxiv.org/api/errors#incorrect_id</id>'
    "<title>Error</title></entry></feed>"
)
NOTE = {
    "id": "PxoFut3dWW",
    "forum": "PxoFut3dWW",
    "cdate": 1695397263217,
    "pdate": 1705412195000,
    "content": {
        "title": {"value": "A Simple and Effective Pruning  Approach"},
        "authors": {"value": ["Mingjie Sun", "Zhuang Liu"]},
        "authorids": {"value": ["~Mingjie_Sun1", "~Zhuang_Liu1"]},
        "venue": {"value": "ICLR 2024 poster"},
        "venueid": {"value": "ICLR.cc/2024/Conference"},
    },
}


@pytest.fixture
def server():
    """A server that answers every request with `server.answer`; `server.asked` holds the paths."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            self.server.answer(self)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        running.daemon_threads = True
        running.address = f"http://127.0.0.1:{running.server_port}/api?id="
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def sends(body: str | bytes, status: int = 200):
    """A handler that answers with `body`."""
    data = body.encode() if isinstance(body, str) else body

    def answer(request):
        request.send_response(status)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    return answer


def fetch(server, identifier: str, timeout: float = 5) -> Metadata:
    return fetch_metadata(
        identifier, arxiv=server.address, openreview=server.address, timeout=timeout
    )


def test_arxiv(server):
    server.answer = sends(ATOM)
    assert fetch(server, "2306.11695") == Metadata(
        "A Simple and Effective Pruning Approach for Large Language Models",
        ("Mingjie Sun", "J. Zico Kolter"),
        2023,
        "arXiv",
        "preprint",
        "Published as a conference paper at ICLR 2024",
    )
    assert server.asked == ["/api?id=2306.11695"]


@pytest.mark.parametrize("body", [EMPTY, ERROR, ATOM.replace("abs/2306.11695", "abs/2306.11696")])
def test_arxiv_has_no_such_paper(server, body):
    server.answer = sends(body)
    with pytest.raises(UserError, match=r"^arXiv has no paper '2306.11695'$") as caught:
        fetch(server, "2306.11695")
    assert not isinstance(caught.value, NoAnswerError)


BOMB = '<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]>'
FILE = '<!DOCTYPE feed [<!ENTITY secret SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<html><body>Rate exceeded.</html>", "arXiv's answer is no feed: mismatched tag"),
        ("Rate exceeded.", "arXiv's answer is no feed: syntax error"),
        ("", "arXiv's answer is no feed: no element found"),
        (ATOM.replace("<entry>", f"{BOMB}<entry>"), "has a document type"),
        (
            ATOM.replace("<feed", f"{BOMB}<feed", 1).replace("Mingjie Sun", "&b;"),
            "has a document type",
        ),
        (
            ATOM.replace("<feed", f"{FILE}<feed", 1).replace("Mingjie Sun", "&secret;"),
            "has a document type",
        ),
        (
            ATOM.replace("<feed", f"{FILE}<feed", 1).replace("UTF-8", "UTF-16").encode("utf-16"),
            "sent no text",
        ),
        (
            ATOM.replace("<title>A Simple and Effective Pruning Approach", "<title>").replace(
                "  for Large Language Models", ""
            ),
            "lacks the title, authors or year of 2306.11695",
        ),
        (
            ATOM.replace("<name>", "<nom>").replace("</name>", "</nom>"),
            "lacks the title, authors or year",
        ),
        (ATOM.replace("2023-06", "when"), "lacks the title, authors or year"),
        ("x" * 1_000_001, "sent more than 1000000 bytes"),
    ],
)
def test_answers_of_arxiv_that_cannot_be_read(server, body, message):
    server.answer = sends(body)
    with pytest.raises(NoAnswerError, match=message) as caught:
        fetch(server, "2306.11695")
    assert "\n" not in str(caught.value)


def test_openreview(server):
    server.answer = sends(json.dumps({"notes": [NOTE], "count": 1}))
    assert fetch(server, "PxoFut3dWW") == Metadata(
        "A Simple and Effective Pruning Approach",
        ("Mingjie Sun", "Zhuang Liu"),
        2024,
        "ICLR",
        "conference",
    )
    assert server.asked == ["/api?id=PxoFut3dWW"]


@pytest.mark.parametrize(
    ("venue", "expected"),
    [
        ("Submitted to ICLR 2025", ("ICLR", "submission", 2025)),
        ("ICLR 2025 Conference Withdrawn Submission", ("ICLR", "submission", 2025)),
        ("ME-FoMo Workshop 2024 Poster", ("ME-FoMo Workshop", "workshop", 2024)),
        ("Accepted by TMLR", (None, None, 2024)),  # the year is that of its publication
        (7, (None, None, 2024)),
    ],
)
def test_venues_of_openreview(server, venue, expected):
    note = {**NOTE, "content": {**NOTE["content"], "venue": {"value": venue}}}
    server.answer = sends(json.dumps({"notes": [note]}))
    found = fetch(server, "PxoFut3dWW")
    assert (found.venue, found.kind, found.year) == expected


def test_openreview_shows_no_such_paper(server):
    server.answer = sends('{"notes": [], "count": 0}')
    with pytest.raises(UserError, match=r"^OpenReview shows no paper 'PxoFut3dWW'$"):
        fetch(server, "PxoFut3dWW")


LACKS = "OpenReview's answer lacks the title or authors of PxoFut3dWW"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<html>", "OpenReview's answer is no JSON: Expecting value"),
        ("[" * 100_000, "OpenReview's answer is no JSON: "),
        ("[]", LACKS),
        ('{"notes": {}}', LACKS),
        ('{"notes": ["x"]}', LACKS),
        ('{"notes": [{"content": {"title": {"value": "T"}}}]}', LACKS),
        ('{"notes": [{"content": {"title": {"value": 3}, "authors": {"value": ["A"]}}}]}', LACKS),
        (
            '{"notes": [{"content": {"title": {"value": "T"}, "authors": {"value": [null]}}}]}',
            LACKS,
        ),
    ],
)
def test_answers_of_openreview_that_cannot_be_read(server, body, message):
    server.answer = sends(body)
    with pytest.raises(NoAnswerError, match=message):
        fetch(server, "PxoFut3dWW")


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_service_that_refuses(server, status):
    server.answer = sends("no", status)
    with pytest.raises(NoAnswerError, match=rf"^127\.0\.0\.1:\d+ answered {status} "):
        fetch(server, "PxoFut3dWW")


def test_no_server():
    with pytest.raises(NoAnswerError, match=r"^127\.0\.0\.1:9 cannot be reached: .*refused"):
        fetch_metadata("2306.11695", arxiv="http://127.0.0.1:9/")


def silent(request):
    time.sleep(2)


def drips(request):
    request.send_response(200)
    request.end_headers()
    for _ in range(20):
        request.wfile.write(b"<")
        request.wfile.flush()
        time.sleep(0.1)


@pytest.mark.parametrize("answer", [silent, drips])
def test_no_full_answer_in_time(server, answer):
    server.answer = answer
    began = time.monotonic()
    with pytest.raises(
        NoAnswerError, match=r"cannot be reached: .*(timed out|no full answer within 0.3 s)"
    ):
        fetch(server, "2306.11695", timeout=0.3)
    assert time.monotonic() - began < 1.5
