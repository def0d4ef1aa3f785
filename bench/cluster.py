"""Cluster for a benchmark: a product's broker and agents as real processes with a temporary home."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from threading import Thread
from typing import Final, TypeVar

import anyio
from msgspec import Struct

from airunner.certs.home import Home
from airunner.client.reach import reach
from airunner.transport.channel import Channel
from bench.product import Product, Unmeasured

READY: Final = "ready:"  # in the line that a process prints on stderr when it is ready
STOP_S: Final = 10  # seconds for a process to end after SIGTERM
ANYWHERE: Final = "tcp://127.0.0.1:0"

_T = TypeVar("_T")


class Cluster(Struct, frozen=True):
    """Running cluster: its endpoint for requests, its home with the keys, a token, and the broker's process id.

    `start_s`: seconds from the start of the broker's process until it was ready.
    """

    requests: str
    home: Path
    token: str
    broker_pid: int
    start_s: float = 0.0


@contextmanager
def cluster(
    product: Product, *, spawn: int, agents: int = 1, tenant: str = "default", requests_per_s: int = 1_000
) -> Generator[Cluster]:
    """Run a broker with `agents` agents of `spawn` slots each during the block, with a temporary home.

    The agents run jobs of `tenant`, whose token the cluster has; the broker's --tenant-requests is `requests_per_s`.
    """
    with ExitStack() as stack:
        home = stack.enter_context(new_home(product))
        where = stack.enter_context(broker(product, home, tenant=tenant, requests_per_s=requests_per_s))
        for _ in range(agents):
            stack.enter_context(agent(product, where, spawn))
        yield where


@contextmanager
def new_home(product: Product) -> Generator[Path]:
    """Make a home with keys, for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="airunner-bench-") as folder:
        home = Path(folder)
        subprocess.run(product.command("certs", "init"), env=product.environ(home), check=True, capture_output=True)
        yield home


@contextmanager
def broker(
    product: Product,
    home: Path,
    *,
    tenant: str = "default",
    requests_per_s: int = 1_000_000,
    store: str | None = None,
    keys: Path | None = None,
) -> Generator[Cluster]:
    """Run a broker with this home during the block: a cluster without agents, whose token is of `tenant`.

    `store` is the URL of its store; `keys`, if given, is the home with the keys of agents and clients.
    """
    keys = keys or home
    arguments = ["broker", "--listen", ANYWHERE, "--events", ANYWHERE, "--http", "127.0.0.1:0"]
    arguments += ["--tenant-requests", str(requests_per_s)]
    arguments += ["--store", store] if store else []
    began_s = time.monotonic()
    with running(product, home, arguments) as (ready, pid):
        start_s = time.monotonic() - began_s
        requests = next(word for word in ready.split() if word.startswith("tcp://"))
        yield Cluster(requests, keys, token(product, keys, tenant), pid, start_s)


@contextmanager
def filled_broker(
    product: Product, fill: Callable[[Path, int], _T], count: int, *, requests_per_s: int = 1_000_000
) -> Generator[tuple[Cluster, _T]]:
    """Run a broker during the block whose store `fill` has filled with `count`; yield also what that returned."""
    with new_home(product) as home:
        filled = product.call(fill, Home(home).store, count)
        os.sync()  # otherwise the broker's first fsyncs wait for what filled the store
        with broker(product, home, requests_per_s=requests_per_s) as where:
            yield where, filled


@contextmanager
def agent(product: Product, where: Cluster, spawn: int) -> Generator[int]:
    """Run an agent of `spawn` slots during the block, with the cluster's home and token; yield its process id."""
    arguments = ["agent", "--broker", where.requests, "--spawn", str(spawn), "--token", where.token]
    with running(product, where.home, arguments) as (_, pid):
        yield pid


@asynccontextmanager
async def connected(where: Cluster) -> AsyncGenerator[Channel]:
    """Connect a Channel to the cluster's broker during the block."""
    way = reach(where.requests, where.token, where.home)
    try:
        async with anyio.create_task_group() as group:
            channel = Channel(way.network, way.endpoints, way.token, way.edges)
            await group.start(channel.run)
            yield channel
            group.cancel_scope.cancel()
    finally:
        way.close()


def free_port() -> int:
    """Find a free port, for a server that cannot choose one or that listens on the same one each time."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def token(product: Product, home: Path, tenant: str) -> str:
    """Make a token with all roles in a tenant, which is valid for an hour."""
    return subprocess.run(
        product.command("token", "--subject", "bench", "--tenant", tenant),
        env=product.environ(home),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


@contextmanager
def running(product: Product, home: Path, arguments: list[str]) -> Generator[tuple[str, int]]:
    """Run a process until the end of the block; yield its ready line and its process id."""
    process = subprocess.Popen(
        product.command(*arguments), env=product.environ(home), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines: list[str] = []
    try:
        for line in process.stderr:
            lines.append(line)
            if READY in line:
                break
        else:
            raise Unmeasured(f"airunner {arguments[0]} did not get ready:\n{''.join(lines)}")
        # Further output is read and dropped: a full pipe would block the process.
        Thread(target=deque, args=(process.stderr, 0), daemon=True).start()
        yield lines[-1], process.pid
    finally:
        process.terminate()
        process.wait(STOP_S)
