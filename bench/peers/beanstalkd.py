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

import anyio

from bench.bareprocess import in_threads, run_command
from bench.peers import works
from bench.peers.works import AT_ONCE, BULK, LIVES, LONE, PROCESSES, RATE, SECONDS, Peer, Works, between_ms
from bench.product import WORKING_TREE

BODY: Final = b'{"command":"/bin/true"}'
PIPELINED: Final = 64  # commands that are sent before their replies are read
LISTENING: Final = 'LISTEN_FDS=1 LISTEN_PID=$$ exec beanstalkd -b "$0" -f0 3<&0'  # on standard input, as of systemd

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


def enqueued(port: int, jobs: int, each: int) -> float:
    """Enqueue jobs, `each` of them pipelined; return jobs a second."""
    with Connection(port) as connection:
        began_s = time.perf_counter()
        for _ in range(jobs // each):
            connection.put(each)
        return jobs / (time.perf_counter() - began_s)


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
    with Connection(port) as connection:

        async def submit() -> str:
            return connection.put()[0]

        return anyio.run(works.submitted_s, submit)


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
    in_threads(AT_ONCE, work)
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
        with socket.create_server(("127.0.0.1", 0)) as listening:
            process = subprocess.Popen(("sh", "-c", LISTENING, log), stdin=listening.fileno())
            port = listening.getsockname()[1]
        try:
            yield port
        finally:
            process.kill()
            process.wait()

    def alone(work: Callable[[int], _T]) -> _T:
        with server() as port:
            return work(port)

    yield Works(
        one_by_one=partial(alone, lambda port: enqueued(port, LONE, 1)),
        in_bulk=partial(alone, lambda port: enqueued(port, BULK, PIPELINED)),
        end_to_end=partial(alone, _end_to_end),
        start_ms=partial(alone, _start_ms),
        true=partial(alone, true),
    )


PEER: Final = Peer(
    "beanstalkd",
    "" if shutil.which("beanstalkd") else "beanstalkd is not installed: apt-get install beanstalkd",
    _started,
)
