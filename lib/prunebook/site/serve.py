"""Serve the built site on this machine only."""

import functools
import http.server
from pathlib import Path

from ..errors import UserError


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files of the site; requests are not logged."""

    def log_message(self, *_) -> None:
        pass


def make_server(root: Path | str, port: int) -> http.server.ThreadingHTTPServer:
    """A server of `_build/html` on 127.0.0.1 that listens but does not answer yet.

    Args:
        root: the book's folder.
        port: the port to listen at; 0 stands for any free one.

    Raises:
        UserError: the site has not been built, or the port is taken.
    """
    html = Path(root) / "_build" / "html"
    if not (html / "index.html").is_file():
        raise UserError(f"no site at {html}; run `prunebook build` first")
    try:
        handler = functools.partial(_Handler, directory=html)
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"port {port} cannot be used: {reason}; choose another with --port"
        ) from error


def serve(root: Path | str, port: int) -> None:
    """Serve the site until interrupted; errors as `make_server`."""
    with make_server(root, port) as server:
        print(
            f"The Pruning Book: http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", flush=True
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
