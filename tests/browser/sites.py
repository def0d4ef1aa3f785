"""A site of real processes: a broker, an agent and a web server on fixed ports, so that each can be started again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from airunner.protocol.jobfields import JobFields
from airunner.sync import Client
from airunner.transport.patience import UNBOUNDED
from tests.acceptance.running import RunningBroker, make_home, running_cluster
from tests.acceptance.webserver import RunningWeb


class Site(RunningWeb):
    """A web server, with the broker and the agent behind it."""

    @property
    def broker(self) -> RunningBroker:
        return self.cluster.broker

    def login(self, *options: str) -> list[dict[str, str]]:
        """The cookies of a browser that has logged in by a link, as Playwright takes them."""
        with closing(self.browser(options)) as client:
            return [{"name": name, "value": value, "url": self.url} for name, value in client.cookies.items()]

    def sdk(self, *roles: str, **claims: Any) -> Client:
        """A client of the broker; the claims are those of `token`."""
        token = self.token(*roles, **claims)
        return Client(broker=self.broker.requests, token=token, home=self.cluster.home, patience=UNBOUNDED)


class Fed:
    """A job that writes numbered lines when the test says so, and ends with the block."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "fed"
        os.mkfifo(self._path)
        self._written = 0

    @property
    def job(self) -> JobFields:
        """Fields of the job."""
        return {"command": "cat", "args": [str(self._path)], "name": "fed"}

    def __enter__(self) -> Self:
        self._pipe = self._path.open("w")  # once the job reads
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()

    def lines(self, last: int) -> None:
        """Let the job write lines up to the one of this number."""
        self._pipe.writelines(f"line {number}\n" for number in range(self._written + 1, last + 1))
        self._pipe.flush()
        self._written = last


@contextmanager
def running_site(home: Path, spawn: int = 4) -> Iterator[Site]:
    """A site that is there while the block runs."""
    make_home(home)
    with running_cluster(home) as cluster:
        cluster.agent("--name", "builder-1", spawn=spawn)
        site = Site(cluster)
        try:
            yield site
            assert site.broker.process.running, "\n".join(site.broker.process.lines)
        finally:
            site.stop()
