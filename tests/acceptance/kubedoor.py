"""A door before an API server: a proxy, which kills a scaler with SIGKILL at a request that a test names."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

from tests.acceptance.kubeapi import Kube


class Door(ThreadingHTTPServer):
    """Proxy that forwards all but watches. At request `cut_at` it kills the scaler `before` the request is done, or
    `after` it; or the request is done `late`, when the test has set `release`.
    """

    daemon_threads = True

    def __init__(self, kube: Kube) -> None:
        super().__init__(("127.0.0.1", 0), _Forwarding)
        self.kube = kube
        self.cut_at, self.cut, self.pid = 0, "", 0
        self.asked: list[str] = []
        self.release, self.done = Event(), Event()

    def handle_error(self, *_: object) -> None:
        """Say nothing of a scaler that was killed."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Forwarding(BaseHTTPRequestHandler):
    server: Door
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _forward(self) -> None:
        door = self.server
        if "watch=" in self.path:  # the scaler lists the Jobs each time
            self.send_error(503)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        door.asked.append(f"{self.command} {self.path}")
        cut = door.cut if len(door.asked) == door.cut_at else ""
        if cut in {"before", "late"}:
            os.kill(door.pid, signal.SIGKILL)
        if cut == "late":
            door.release.wait()
        status, answer = (0, b"") if cut == "before" else self._asked(body)
        if cut == "after":
            os.kill(door.pid, signal.SIGKILL)
        if cut:
            self.close_connection = True
            door.done.set()
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _asked(self, body: bytes) -> tuple[int, bytes]:
        try:
            with self.server.kube.open(self.command, self.path, json.loads(body) if body else None) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def do_GET(self) -> None:
        self._forward()

    def do_POST(self) -> None:
        self._forward()

    def do_DELETE(self) -> None:
        self._forward()


@contextmanager
def door_before(kube: Kube) -> Iterator[Door]:
    """A door while the block runs."""
    door = Door(kube)
    thread = Thread(target=door.serve_forever)
    thread.start()
    try:
        yield door
    finally:
        door.shutdown()
        thread.join()
        door.server_close()
