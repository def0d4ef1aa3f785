"""Files of jobs in a bucket of S3 that goes away in the middle of an upload: they wait, and nothing else does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread

import pytest

from tests.acceptance.running import Cluster, RunningBroker, submitted
from tests.acceptance.test_artifacts import MANY, leaving
from tests.aws.serving import Emulators
from tests.postgresql.serving import free_port

LOOPBACK = "127.0.0.1"
CUT_BYTES = 20_000_000  # of an upload of some 50 MB
CHUNK = 65_536
TIMEOUT_S = 120


class Link:
    """Link to a server by a port of its own, which is cut once so many bytes have come through, and mended once."""

    def __init__(self, server: int, cut_bytes: int) -> None:
        self.port = free_port()
        self._server = server
        self._left_bytes: float = cut_bytes
        self._open: set[socket.socket] = set()
        self._lock = Lock()
        self.was_cut = Event()
        self._listen()

    def _listen(self) -> None:
        listener = socket.create_server((LOOPBACK, self.port))
        self._open.add(listener)
        Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                ends = listener.accept()[0], socket.create_connection((LOOPBACK, self._server))
                with self._lock:
                    self._open.update(ends)
                for source, target in (ends, ends[::-1]):
                    Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK):
                with self._lock:
                    self._left_bytes -= len(chunk)
                    cut = self._left_bytes < 0
                if cut:
                    self.cut()
                target.sendall(chunk)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Close all connections, and take no further ones."""
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            self._open.clear()
        self.was_cut.set()

    def mend(self) -> None:
        """Take connections again, and cut them no more."""
        self._left_bytes = float("inf")
        self._listen()


@pytest.fixture
def link(aws_emulators: Emulators, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    server = aws_emulators("moto")
    server.client("s3").create_bucket(Bucket="files")
    assert server.url is not None
    link = Link(int(server.url.rpartition(":")[2]), CUT_BYTES)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{LOOPBACK}:{link.port}")
    monkeypatch.setenv("AWS_REGION", server.region)
    yield link
    link.cut()


@pytest.mark.timeout(TIMEOUT_S)
def test_while_a_bucket_is_away_uploads_wait_and_events_do_not(home: Path, link: Link) -> None:
    cluster = Cluster(RunningBroker(home, None, "--blobs", "s3://files/of/jobs"))
    try:
        cluster.agent(spawn=2)
        job_id = submitted(cluster, *leaving(MANY))
        assert link.was_cut.wait(TIMEOUT_S)
        other = cluster.airunner("submit", "--", "sh", "-c", "echo all; echo is well")
        assert (other.returncode, other.stdout) == (0, b"all\nis well\n")
        link.mend()
        assert cluster.airunner("wait", job_id, timeout_s=TIMEOUT_S).returncode == 0
        listed = cluster.airunner("artifacts", job_id).stdout.splitlines()
        assert len(listed) == 1 + MANY + 3
        got = cluster.airunner("artifacts", job_id, "get", "-o", str(home / "got"), timeout_s=TIMEOUT_S)
        assert got.returncode == 0, got.stderr
        assert len(list((home / "got/dist").iterdir())) == MANY + 3
    finally:
        cluster.close()
