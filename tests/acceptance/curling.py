"""Real curls at a real `airunner web`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from tests.acceptance.webserver import RunningWeb

HOLD_S = 60.0  # for an answer of curl, on a busy machine


class Curled(RunningWeb):
    """A web server that curl asks, with the token of all roles or with another."""

    def ask(self, path: str, *options: str, token: str | None = None) -> Answer:
        """What curl gets."""
        words = self.curl(path, "-i", "--max-time", str(HOLD_S), *options, token=token)
        done = subprocess.run(words, capture_output=True, check=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        return Answer(int(first.split()[1]), dict(line.lower().split(": ", 1) for line in rest), body)

    def post(self, path: str, body: object = None, *options: str, token: str | None = None) -> Answer:
        """What curl gets for a POST of JSON."""
        sent = ["-X", "POST"] if body is None else ["--json", json.dumps(body)]
        return self.ask(path, *sent, *options, token=token)

    @contextmanager
    def stream(self, path: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """A curl that goes on; it is killed at the end."""
        words = self.curl(path, "-N", *options)
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as curl:
            try:
                yield curl
            finally:
                curl.kill()

    def curl(self, path: str, *options: str, token: str | None = None) -> list[str]:
        """The words of a curl."""
        given = self.token() if token is None else token
        return ["curl", "-sS", "-H", f"Authorization: Bearer {given}", *options, f"{self.url}{path}"]


class Answer:
    """An answer: its status, its headers in lower case, and its body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Received:
    """What a reader has of a stream of server-sent events: the whole events, and the id of the last."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.last = ""
        self.ended = False

    @property
    def resume(self) -> tuple[str, ...]:
        """Options of the curl that goes on after the last whole event."""
        return ("-H", f"Last-Event-ID: {self.last}") if self.last else ()

    def take(self, raw: bytes) -> Self:
        """Take the whole events of these bytes, which begin with a stream; what was cut off is not taken."""
        for block in raw.split(b"\n\n")[:-1]:
            fields = dict(line.split(b": ", 1) for line in block.splitlines() if line[:1] != b":")
            if b"id" not in fields:
                continue
            self.last = fields[b"id"].decode()
            if fields.get(b"event") == b"end":
                self.ended = True
            else:
                self.events.append(json.loads(fields[b"data"]))
        return self
