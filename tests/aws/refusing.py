"""A server that answers as DynamoDB does, with errors: what an emulator never says, such as a throttled account."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

JSON = "application/x-amz-json-1.0"


class Refusal(NamedTuple):
    """Error as AWS answers it: `kind` is its `__type`, of which the code is the part after #."""

    status: int
    kind: str
    message: str


class Refusing:
    """Address of a server, and the names of the operations that it was asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []


@contextmanager
def refusing(refusal: Refusal) -> Iterator[Refusing]:
    """Answer every request with an error while the block runs."""
    body = json.dumps({"__type": refusal.kind, "message": refusal.message}).encode()

    class Server(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            refused.asked.append(self.headers["X-Amz-Target"].partition(".")[2])
            self.send_response(refusal.status)
            self.send_header("Content-Type", JSON)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        refused = Refusing(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield refused
        finally:
            server.shutdown()
            thread.join()
