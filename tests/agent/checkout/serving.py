"""Repositories over HTTP, from a server that can be locked, and can fail first."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


class HttpServer(ThreadingHTTPServer):
    """Serves the files of a folder, to those with the credentials where it has any."""

    def __init__(self, folder: Path, credentials: str = "") -> None:
        super().__init__(("127.0.0.1", 0), partial(_Answer, directory=str(folder)))
        self.expected = f"Basic {b64encode(credentials.encode()).decode()}" if credentials else ""
        self.offered: list[str] = []
        self.failures: list[int] = []
        """What the next requests are answered with."""

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Answer(SimpleHTTPRequestHandler):
    server: HttpServer

    def do_GET(self) -> None:
        self.server.offered.append(self.headers.get("Authorization", ""))
        if self.server.failures:
            self.send_error(self.server.failures.pop(0))
        elif self.server.offered[-1] == self.server.expected:
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="locked"')
            self.end_headers()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing."""

    def log_error(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def over_http(folder: Path, credentials: str = "") -> Generator[HttpServer]:
    """The server, while the block runs. A repository has to be told `git update-server-info`."""
    with HttpServer(folder, credentials) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
