"""Pairs of servers for tests: a synchronous standby keeps what was acknowledged, and an asynchronous one loses it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event

import pytest

from airunner.broker.store.contract import StoreAway
from airunner.broker.store.postgres.connecting import Link
from airunner.broker.store.postgres.opening import check_server
from tests.postgresql.serving import ROLE, require
from tests.postgresql.standby import Pair, part

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(120)]
FAILOVERS = 2
ROWS = 50  # that are acknowledged after a failover, before the next one


def insert_all(link: Link, stop: Event) -> Iterator[int]:
    """Insert numbers, and yield each when that is acknowledged; what is lost is inserted again."""
    number = 0
    while not stop.is_set():
        try:
            with link.committing():
                link.connection.execute("INSERT INTO kept VALUES (%s) ON CONFLICT DO NOTHING", (number,))
        except StoreAway:
            reconnect(link, stop)
        else:
            yield number
            number += 1


def reconnect(link: Link, stop: Event) -> None:
    while not stop.is_set():
        try:
            link.reconnect()
        except StoreAway:
            continue  # it connects to two servers each time
        return


@pytest.mark.parametrize(("version", "synchronous"), [(15, False), (18, True)])
def test_a_failover_loses_what_no_standby_had_to_have(version: int, synchronous: bool, tmp_path: Path):  # noqa: FBT001
    require(version)
    acknowledged: list[int] = []
    enough = Event()
    stop = Event()
    with ExitStack() as ends, ThreadPoolExecutor() as pool:
        pair = Pair(version, tmp_path, ends, synchronous=synchronous)
        database = pair.primary.database()
        pair.primary.execute("CREATE TABLE kept (number int PRIMARY KEY)", database=database, role=ROLE)
        with closing(Link(pair.url(database), check_server)) as link:

            def work() -> None:
                for number in insert_all(link, stop):
                    acknowledged.append(number)
                    if number % ROWS == 0:
                        enough.set()

            working = pool.submit(work)
            try:
                for _ in range(FAILOVERS):
                    enough.clear()
                    enough.wait()
                    part(pair.standby)
                    enough.clear()
                    synchronous or enough.wait()
                    pair.fail_over()
                    pair.mend()
            finally:
                stop.set()
            working.result()
        kept = {number for (number,) in pair.primary.execute("SELECT number FROM kept", database=database)}
    assert bool(set(acknowledged) - kept) is not synchronous
