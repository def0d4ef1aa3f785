"""Brokers of a fleet as real processes on PostgreSQL, each with a home of its own and the fleet's key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from airunner.certs.allowlist import PeerRole
from airunner.certs.home import Home
from airunner.certs.machines import add, export, import_keys, revoke
from airunner.certs.secretfile import create
from tests.acceptance.running import Cluster, RunningBroker, make_home


def make_homes(home: Path, count: int) -> list[Path]:
    """Make the homes of the brokers of a fleet: the first has all keys, and the others are in it."""
    make_home(home)
    add(Home(home), "fleet", [PeerRole.BROKER], None, None)
    keys = home / "fleet.keys"
    create(keys, export(Home(home), "fleet"))
    homes = [home, *(home / f"home-{number}" for number in range(1, count))]
    for other in homes[1:]:
        import_keys(Home(other), keys, force=False)
    return homes


def cut_bus(homes: list[Path]) -> None:
    """Have the brokers refuse one another; those that are connected already stay so."""
    for home in homes:
        revoke(Home(home), "fleet")


def listed(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """What a broker lists, by the endpoint of each."""
    done = cluster.airunner("brokers", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["endpoint"]: row for row in rows}


@contextmanager
def running_brokers(homes: list[Path], store: str) -> Iterator[list[Cluster]]:
    """Brokers on one store; agents and clients of each have the first one's home."""
    with ExitStack() as stack:
        found: list[Cluster] = []
        for home in homes:
            cluster = Cluster(RunningBroker(home, store))
            cluster.home = homes[0]
            stack.callback(cluster.close)
            found.append(cluster)
        yield found
