"""beanstalkd with `-b` and `-f0`: a log on disk, and an fsync for each change. Spoken to with a small socket client.

Its protocol: https://github.com/beanstalkd/beanstalkd/blob/master/doc/protocol.txt
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final, Self, TypeVar

from bench.peers.works import (
    BULK,
    LIVES,
    LONE,
    PROCESSES,
    RATE,
    SECONDS,
    Peer,
    Works,
    at_once,
    between_ms,
    run_command,
)
from bench.product import WORKING_TREE

BODY: Final = b'{"command":"/bin/true"}'
PIPELINED: Final = 64  # commands that are sent before their replies are read
START_S: Final = 5.0  # for beanstalkd to listen

_T = TypeVar("_T")


class Connection:
    """Connection to beanstalkd."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def put(self, count: int = 1) -> list[str]:
        """Enqueue jobs, pipelined; return their ids."""
        self._socket.sendall(b"put 0 0 600 %d\r\n%b\r\n" % (len(BODY), BODY) * count)
        return [self._reply(b"INSERTED")[0] for _ in range(count)]

    def reserve(self, count: int = 1) -> list[str]:
        """Lease jobs, pipelined; wait until there are as many."""
        self._socket.sendall(b"reserve\r\n" * count)
        return [self._reserved() for _ in range(count)]

    def delete(self, jobs: list[str]) -> None:
        """Complete jobs, pipelined."""
        self._socket.sendall(b"".join(b"delete %b\r\n" % job.encode() for job in jobs))
        for _ in jobs:
            self._reply(b"DELETED")

    def _reserved(self) -> str:
        job, size = self._reply(b"RESERVED")
        self._replies.read(int(size) + 2)
        return job

    def _reply(self, expected: bytes) -> list[str]:
        word, *rest = self._replies.readline().split()
        assert word == expected, (word, rest)
        return [each.decode() for each in rest]


def one_by_one(port: int) -> float:
    """Enqueue jobs one after another; return jobs a second."""
    with Connection(port) as connection:
        began_s = time.perf_counter()
        for _ in range(LONE):
            connection.put()
        return LONE / (time.perf_counter() - began_s)


def in_bulk(port: int) -> float:
    """Enqueue jobs pipelined; return jobs a second."""
    with Connection(port) as connection:
        began_s = time.perf_counter()
        for _ in range(BULK // PIPELINED):
            connection.put(PIPELINED)
        return BULK / (time.perf_counter() - began_s)


def produced_s(port: int) -> float:
    """Enqueue the no-op jobs, pipelined; return the instant before the first."""
    with Connection(port) as connection:
        began_s = time.monotonic()
        for _ in range(LIVES // PIPELINED):
            connection.put(PIPELINED)
    return began_s


def ended_s(port: int) -> float:
    """Lease and complete the no-op jobs, pipelined; return the instant after the last."""
    with Connection(port) as connection:
        for _ in range(LIVES // PIPELINED):
            connection.delete(connection.reserve(PIPELINED))
    return time.monotonic()


def submitted_s(port: int) -> dict[str, float]:
    """Submit jobs at a steady rate; return for each the instant before that."""
    instants: dict[str, float] = {}
    with Connection(port) as connection:
        begin_s = time.monotonic()
        for number in range(int(RATE * SECONDS)):
            time.sleep(max(0.0, begin_s + number / RATE - time.monotonic()))
            began_s = time.monotonic()
            instants[connection.put()[0]] = began_s
    return instants


def started_s(port: int) -> dict[str, float]:
    """Lease and complete the jobs of `submitted_s`; return for each the worker's first instant."""
    instants: dict[str, float] = {}
    with Connection(port) as connection:
        while len(instants) < int(RATE * SECONDS):
            jobs = connection.reserve()
            instants[jobs[0]] = time.monotonic()
            connection.delete(jobs)
    return instants


def true(port: int) -> float:
    """Run jobs in as many threads as are allowed at once; return jobs a second."""
    with Connection(port) as connection:
        for _ in range(PROCESSES // PIPELINED):
            connection.put(PIPELINED)
    left, lock = PROCESSES, Lock()

    def work() -> None:
        nonlocal left
        with Connection(port) as connection:
            while True:
                with lock:
                    if not left:
                        return
                    left -= 1
                jobs = connection.reserve()
                run_command()
                connection.delete(jobs)

    began_s = time.perf_counter()
    at_once(work)
    return PROCESSES / (time.perf_counter() - began_s)


def _start_ms(port: int) -> list[float]:
    worker = WORKING_TREE.start(started_s, port)
    return between_ms(WORKING_TREE.call(submitted_s, port), worker.result())


def _end_to_end(port: int) -> float:
    worker = WORKING_TREE.start(ended_s, port)
    began_s = WORKING_TREE.call(produced_s, port)
    return LIVES / (worker.result() - began_s)


@contextmanager
def _started(folder: Path) -> Generator[Works]:
    """Run beanstalkd for each work alone, so that no jobs are left of another."""
    numbers = iter(range(1_000_000))

    @contextmanager
    def server() -> Generator[int]:
        log = folder / str(next(numbers))
        log.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(("beanstalkd", "-l", "127.0.0.1", "-p", str(port), "-b", log, "-f0"))
        try:
            _wait_for(port)
            yield port
        finally:
            process.kill()
            process.wait()

    def alone(work: Callable[[int], _T]) -> _T:
        with server() as port:
            return work(port)

    yield Works(
        one_by_one=partial(alone, one_by_one),
        in_bulk=partial(alone, in_bulk),
        end_to_end=partial(alone, _end_to_end),
        start_ms=partial(alone, _start_ms),
        true=partial(alone, true),
    )


def _wait_for(port: int) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            Connection(port)
        except ConnectionRefusedError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)
        else:
            return


PEER: Final = Peer(
    "beanstalkd",
    "" if shutil.which("beanstalkd") else "beanstalkd is not installed: apt-get install beanstalkd",
    _started,
)
