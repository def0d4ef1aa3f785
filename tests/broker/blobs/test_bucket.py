"""A bucket when the broker starts: what no repeat mends ends the start with one line, and what may pass is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Thread

import pytest

from airunner.broker.blobs.address import open_blobs
from airunner.broker.blobs.bucket import LOOKUPS_MAX, open_bucket
from airunner.protocol.errors import Busy, OperatorError
from tests.postgresql.serving import free_port

ADDRESS = "s3://files/of/jobs"
VARIABLES = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


class Answering(BaseHTTPRequestHandler):
    """A server that refuses every request with the status and code of the class."""

    status, code = 404, "NoSuchBucket"

    def do_GET(self) -> None:
        body = f"<Error><Code>{self.code}</Code><Message>a long\nstory</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answering]]:
    kind = type("Kind", (Answering,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as running:
        _point(monkeypatch, running.server_address[1])
        Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield kind
        running.shutdown()


def _point(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**VARIABLES, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "NoSuchBucket", "make the bucket, or check its name"),
        (403, "InvalidAccessKeyId", "check the credentials"),
        (401, "Unauthorized", "check the credentials"),
        (400, "AuthorizationHeaderMalformed", "check the address and the endpoint"),
    ],
)
def test_a_bucket_that_refuses_ends_the_start_in_a_line(
    server: type[Answering], status: int, code: str, words: str
) -> None:
    server.status, server.code = status, code
    with pytest.raises(OperatorError, match=f"{status} {code}.*{words}") as refused:
        open_blobs(ADDRESS)
    assert "\n" not in refused.value.message


def test_objects_of_a_bucket_are_looked_up_several_at_a_time(server: type[Answering]) -> None:
    together = Barrier(LOOKUPS_MAX)

    def do_head(answering: Answering) -> None:
        together.wait()  # an error unless all the others come
        status = 200 if answering.path.endswith("0") else 404
        answering.send_response(status)
        answering.send_header("Content-Length", "0")
        answering.send_header("ETag", "1")
        answering.send_header("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")
        answering.end_headers()

    server.status, server.do_HEAD = 200, do_head
    objects = open_bucket(ADDRESS, print)
    keys = [f"key{number}" for number in range(2 * LOOKUPS_MAX)]
    assert [keys[place] for place in objects.missing(keys)] == [key for key in keys if not key.endswith("0")]


def test_credentials_that_are_missing_end_the_start_in_a_line(
    server: type[Answering], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(OperatorError, match="AccessKeyId") as refused:
        open_blobs(ADDRESS)
    assert "\n" not in refused.value.message


def test_a_bucket_that_does_not_answer_is_said_and_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _point(monkeypatch, free_port())
    said: list[str] = []
    store = open_blobs(ADDRESS, say=said.append)
    assert len(said) == 1
    assert "files of jobs wait for it" in said[0]
    assert "\n" not in said[0]
    for _ in range(2):
        with pytest.raises(Busy):
            store.tenants()
