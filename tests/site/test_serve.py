"""The server of the built site."""

import threading
import urllib.request

import pytest

from prunebook.errors import UserError
from prunebook.site.serve import make_server


def test_serve(tmp_path):
    with pytest.raises(UserError, match="run `prunebook build` first"):
        make_server(tmp_path, 0)
    html = tmp_path / "_build" / "html"
    html.mkdir(parents=True)
    (html / "index.html").write_text("hello")
    with make_server(tmp_path, 0) as server:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(UserError, match=f"port {server.server_port} cannot be used"):
            make_server(tmp_path, server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as answer:
            assert answer.read() == b"hello"
        server.shutdown()
    with pytest.raises(UserError, match="port 70000 cannot be used"):
        make_server(tmp_path, 70000)
