"""Brokers at one table, all at once: each does whole lives of jobs, while the others take jobs from under its hands.

What a broker has acknowledged has to be there afterwards, once and whole. It is not where transactions are not atomic.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, Final

from airunner.broker.lifecycle.commands import Applied, Command
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import StoreAway
from airunner.broker.store.dynamodb.engine import DynamoEngine
from airunner.broker.store.dynamodb.schema import bucket_of
from airunner.protocol.errors import AirunnerError, Busy
from airunner.protocol.events import Output
from airunner.protocol.job import JobState
from airunner.protocol.replies import JobCompleted, JobLease, QueueMode
from tests.conformance import dynamocounters
from tests.conformance.driving import Driver, batch, completion

LIVES: Final = 4  # jobs that each broker submits, and as many that it runs
TRIES_MAX: Final = 20  # of a request that a broker is too busy for
OTHER: Final = next(name for name in map(str, count()) if bucket_of(name) == bucket_of("default"))
"""Queue that is counted together with the one in which the jobs are."""
LINES: Final = ("one", "two", "three")


class Patient(Driver):
    """Driver that repeats a request, as it is, until the broker has the time for it."""

    def apply(self, *commands: Command) -> Applied:
        for _ in range(TRIES_MAX - 1):
            try:
                return super().apply(*commands)
            except StoreAway:
                self.store.engine.reconnect()
            except Busy:
                continue
        return super().apply(*commands)


class Crowd:
    """Brokers, each with a driver of its own, and what they have acknowledged."""

    def __init__(self, engines: Sequence[DynamoEngine]) -> None:
        self.drivers = [Patient(Store(engine)) for engine in engines]
        for number, driver in enumerate(self.drivers):
            driver._drawn = number << 32  # ids of its own
        self.submitted: set[str] = set()
        self.completed: set[str] = set()
        self.leased: list[str] = []  # job and attempt
        self._broken: list[str] = []

    def run(self) -> None:
        """Have all brokers work at the same time."""
        with ThreadPoolExecutor(len(self.drivers)) as pool:
            list(pool.map(self._work, self.drivers))

    def _work(self, driver: Driver) -> None:
        try:
            self._live(driver)
        except Exception as error:  # noqa: BLE001 - on moto anything may come of it
            self._broken.append(f"a broker got no further: {error!r}")

    def _live(self, driver: Driver) -> None:
        for _ in range(LIVES):
            for mode in (QueueMode.PAUSED, QueueMode.OPEN):  # a change of all brokers' tallies
                driver.set_mode(mode, OTHER)
            self.submitted.update(driver.submit())
            for lease in driver.lease():
                self.leased.append(f"{lease.job_id} {lease.attempt}")
                self._run(driver, lease)

    def _run(self, driver: Driver, lease: JobLease) -> None:
        for number, line in enumerate(LINES):
            driver.publish(batch(lease, number, line))
        driver.reply(JobCompleted, completion(lease, len(LINES)))
        self.completed.add(lease.job_id)

    def complaints(self, client: Any, table: str) -> list[str]:
        """What is not as it was acknowledged."""
        driver, found = self.drivers[0], [*self._broken]
        found += [f"{each} was leased twice" for each in {*self.leased} if self.leased.count(each) > 1]
        for job_id in sorted(self.submitted):
            try:
                state = driver.state(job_id)
                lines = [
                    body.data.decode() for body in (e.body for e in driver.log(job_id)) if isinstance(body, Output)
                ]
            except (AssertionError, AirunnerError) as error:
                found.append(f"{job_id} cannot be read: {error}")
                continue
            if job_id in self.completed and (state, tuple(lines)) != (JobState.COMPLETED, LINES):
                found.append(f"{job_id} was completed with three lines, and is {state} with {lines}")
        try:
            dynamocounters.require_right(dynamocounters.scan(client, table))
        except AssertionError as error:
            found.append(f"counted otherwise: {error}")
        return found
