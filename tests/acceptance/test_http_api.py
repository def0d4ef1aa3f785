"""The HTTP API with a real curl: killed and resumed, over a broker that restarts, of other tenants, and by a fuzzer."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from airunner.client.web.api.routes import OPERATIONS
from tests.acceptance.curling import Curled, Received
from tests.acceptance.running import Cluster, make_home, running_cluster, submitted
from tests.client.web.api.described import violations
from tests.fuzz.httpapi import fuzz

KILLS = 20
WRITER = """
import sys
folder, bursts = sys.argv[1], int(sys.argv[2])
for burst in range(bursts):
    open(f"{folder}/{burst}").read()
    for line in range(100):
        sys.stdout.buffer.write(b"%d.%d %s\\n" % (burst, line, b"o\\xff\\xe2\\x82\\xac" * (line % 25)))
        if line % 9 == 0:
            sys.stderr.buffer.write(b"burst %d begins in the middle of a line" % burst)
            sys.stderr.buffer.flush()
    sys.stdout.buffer.flush()
"""


class Bursts:
    """A job that writes a burst of output whenever the test says so."""

    def __init__(self, cluster: Cluster, folder: Path, bursts: int) -> None:
        self._folder = folder
        for burst in range(bursts):
            os.mkfifo(folder / str(burst))
        self._next = 0
        self.job_id = submitted(cluster, "--", sys.executable, "-c", WRITER, str(folder), str(bursts))

    def write(self) -> None:
        """Let it write the next burst."""
        (self._folder / str(self._next)).write_text("now\n")
        self._next += 1


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Curled]:
    """A web server beside a cluster of two slots."""
    home = tmp_path_factory.mktemp("web") / "home"
    make_home(home)
    with running_cluster(home) as cluster:
        cluster.agent(spawn=2)
        web = Curled(cluster)
        yield web
        web.stop()


def logged(cluster: Cluster, job_id: str, stream: str) -> bytes:
    done = cluster.airunner("logs", f"--{stream}", job_id)
    assert done.returncode == 0, done.stderr
    return done.stdout if stream == "stdout" else done.stderr


def assert_whole(cluster: Cluster, job_id: str, received: Received) -> None:
    """Every event came once and in order, and their output is that of `airunner logs`, byte for byte."""
    assert received.ended
    assert [event["sequence"] for event in received.events] == [*range(1, len(received.events) + 1)]
    written: dict[str, bytes] = {"stdout": b"", "stderr": b""}
    for event in received.events:
        if event["kind"] == "OUTPUT":
            decode = base64.b64decode if event["encoding"] == "base64" else str.encode
            written[event["stream"]] += decode(event["data"])
    for stream, data in written.items():
        assert data == logged(cluster, job_id, stream), stream
        assert data


def test_a_curl_that_is_killed_20_times_and_resumed_has_the_log_byte_for_byte(web: Curled, tmp_path: Path) -> None:
    bursts = Bursts(web.cluster, tmp_path, KILLS + 1)
    path = f"/v1/jobs/{bursts.job_id}/events"
    random, received = Random(20), Received()
    for _ in range(KILLS):
        bursts.write()
        with web.stream(path, *received.resume) as curl:
            assert curl.stdout is not None
            received.take(curl.stdout.read(random.randrange(1, 8_000)))  # then it is killed
        assert not received.ended
    bursts.write()
    with web.stream(path, *received.resume) as curl:
        received.take(curl.communicate()[0])
        assert curl.returncode == 0
    assert_whole(web.cluster, bursts.job_id, received)
    whole = web.ask(path)
    assert violations("GET", path, whole.status, whole.headers, whole.body) == []
    assert Received().take(whole.body).events == received.events
    assert web.ask(path, "-H", f"Last-Event-ID: {received.last}").status == 204
    assert web.ask(f"/v1/jobs/{bursts.job_id}/log?stream=stdout").body == logged(web.cluster, bursts.job_id, "stdout")


def test_a_curl_goes_on_while_the_broker_restarts_three_times_and_no_job_notices_the_web_server_die(
    web: Curled, tmp_path: Path
) -> None:
    bursts = Bursts(web.cluster, tmp_path, 5)
    path = f"/v1/jobs/{bursts.job_id}/events"
    raw = b""
    with web.stream(path) as curl:
        assert curl.stdout is not None
        for restart in range(3):
            bursts.write()
            while b"burst %d begins" % restart not in raw:
                raw += curl.stdout.readline()
            web.cluster.broker.kill()
            web.cluster.broker.start()
        bursts.write()
        while b"burst 3 begins" not in raw:
            raw += curl.stdout.readline()
        assert curl.poll() is None
        web.kill()
        raw += curl.stdout.read()
    received = Received().take(raw)
    assert not received.ended
    web.start()
    with web.stream(path, *received.resume) as curl:
        bursts.write()
        received.take(curl.communicate()[0])
    assert_whole(web.cluster, bursts.job_id, received)
    found = web.ask(f"/v1/jobs/{bursts.job_id}").json
    assert (found["state"], found["attempt"]) == ("COMPLETED", 1)


def test_submissions_with_one_key_at_the_same_time_are_one_job(web: Curled) -> None:
    body = '{"command": "true", "queue": "once", "metadata": {"once": "1"}}'
    words = web.curl("/v1/jobs", "--json", body, "-H", "Idempotency-Key: 6a2f")
    curls = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(8)]
    answers = {curl.communicate()[0] for curl in curls}
    assert len(answers) == 1
    assert b"job_id" in answers.pop()
    assert web.ask("/v1/jobs?label=once%3D1&count=true").json["total"] == 1


def _asked(operation: Any, job_id: str) -> str:
    return operation.path.replace("{job_id}", job_id).replace("{queue:path}", "once")


def test_another_tenant_finds_nothing_and_a_reader_changes_nothing(web: Curled) -> None:
    job_id = web.post("/v1/jobs", {"command": "true", "queue": "never"}).json["job_id"]
    stranger = web.token(tenant="another")
    reader = web.token("read")
    for operation in OPERATIONS:
        body = {"command": "true"} if operation.bodies else None
        ask = (
            (lambda path, token: web.ask(path, token=token))
            if operation.method == "GET"
            else (lambda path, token, body=body: web.post(path, body, token=token))
        )
        path = _asked(operation, job_id)
        if "{job_id}" in operation.path:
            refused = ask(path, stranger)
            assert refused.status == 404, operation.name
            assert refused.json["detail"] == f"there is no job {job_id}"
            assert ask(_asked(operation, "none"), stranger).status == 404
            assert violations(operation.method, path, refused.status, refused.headers, refused.body) == []
        if operation.role != "read":
            refused = ask(path, reader)
            assert (refused.status, refused.json["code"]) == (403, "forbidden"), operation.name
            assert violations(operation.method, path, refused.status, refused.headers, refused.body) == []
    assert web.ask("/v1/jobs", token=stranger).json == {"jobs": []}
    assert "never" not in str(web.ask("/v1/queues", token=stranger).json)
    assert web.ask(f"/v1/jobs/{job_id}", token=reader).json["state"] == "SCHEDULED"
    assert web.post(f"/v1/jobs/{job_id}/cancel").json["state"] == "CANCELLED"


def test_a_fuzzer_that_reads_the_description_finds_nothing(web: Curled) -> None:
    done = fuzz(web.url, web.token(), seconds=5, seed=8)
    assert done.returncode == 0, done.stdout.decode()
