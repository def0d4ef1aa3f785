"""Cluster for a benchmark: a broker and agents as real processes with a temporary home."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

from msgspec import Struct

READY = "ready:"  # in the line that a process prints on stderr when it is ready
STOP_S = 10  # seconds for a process to end after SIGTERM


class Cluster(Struct, frozen=True):
    """Running cluster: its endpoint for requests, its home with the keys, and the broker's process id."""

    requests: str
    home: Path
    broker_pid: int


@contextmanager
def cluster(*, spawn: int, agents: int = 1, tenant: str = "default", requests_per_s: int = 1_000) -> Generator[Cluster]:
    """Run a broker with `agents` agents of `spawn` slots each during the block, with a temporary home.

    The agents run jobs of `tenant`; the broker's --tenant-requests is `requests_per_s`.
    """
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="airunner-bench-")))
        environ = {**os.environ, "AIRUNNER_HOME": str(home)}
        subprocess.run([*airunner(), "certs", "init"], env=environ, check=True, capture_output=True)
        anywhere = "tcp://127.0.0.1:0"
        broker = ["broker", "--listen", anywhere, "--events", anywhere, "--http", "127.0.0.1:0"]
        broker += ["--tenant-requests", str(requests_per_s)]
        ready, pid = stack.enter_context(running(broker, environ))
        requests = next(word for word in ready.split() if word.startswith("tcp://"))
        where = Cluster(requests, home, pid)
        agent = ["agent", "--broker", requests, "--spawn", str(spawn), "--token", token(where, tenant)]
        for _ in range(agents):
            stack.enter_context(running(agent, environ))
        yield where


def token(where: Cluster, tenant: str) -> str:
    """Make a token with all roles in a tenant, which is valid for an hour."""
    return subprocess.run(
        [*airunner(), "token", "--subject", "bench", "--tenant", tenant],
        env={**os.environ, "AIRUNNER_HOME": str(where.home)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


@contextmanager
def running(arguments: Sequence[str], environ: dict[str, str]) -> Generator[tuple[str, int]]:
    """Run a process until the end of the block; yield its ready line and its process id."""
    process = subprocess.Popen([*airunner(), *arguments], env=environ, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines: list[str] = []
    try:
        for line in process.stderr:
            lines.append(line)
            if READY in line:
                break
        else:
            raise RuntimeError(f"airunner {arguments[0]} did not get ready:\n{''.join(lines)}")
        # Further output is read and dropped: a full pipe would block the process.
        Thread(target=deque, args=(process.stderr, 0), daemon=True).start()
        yield lines[-1], process.pid
    finally:
        process.terminate()
        process.wait(STOP_S)


def airunner() -> list[str]:
    """Return the command `airunner` of this installation."""
    return [sys.executable, "-m", "airunner"]
