"""The write units in docs/AWS.md are those that DynamoDB counts, of requests that come alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from airunner.broker.lifecycle.commands import Beat
from airunner.broker.store.batch import Store
from airunner.broker.store.dynamodb.table import Table
from airunner.protocol.replies import JobsUpdated
from airunner.protocol.requests import PublishJobEvents, UpdateJob
from tests.aws.serving import Emulators
from tests.aws.stacks import open_still
from tests.conformance.driving import VISIBILITY_MS, Driver, batch, completion

PAGE = (Path(__file__).parents[2] / "docs" / "AWS.md").read_text()
SEGMENT = "x" * 4_096  # as it is stored: agents have compressed it
JOBS = 10
T = TypeVar("T")
pytestmark = pytest.mark.timeout(60)


def table() -> dict[str, float]:
    """The write units on the page, by step."""
    (rows,) = re.findall(r"<!-- counted: tests/aws/test_costs.py -->\n\|.+\n\|.+\n((?:\|.+\n)+)", PAGE)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()]
    return {step: float(units) for step, units in cells}


class Counted(dict[str, float]):
    """Write units of each step, of an engine's table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __call__(self, step: str, asked: Callable[[], T], each: int = 1) -> T:
        """Count what a step takes, for each of so many."""
        before = self._table.units
        answer = asked()
        self[step] = (self._table.units - before) / each
        return answer


def test_each_step_takes_the_write_units_that_the_page_says(aws_emulators: Emulators) -> None:
    aws = aws_emulators("dynoxide")  # which counts as AWS does
    with closing(open_still(f"{aws.store(aws.create())}&bus=jobs")) as engine:
        driver = Driver(Store(engine))
        driver.ended()  # so that the tenant and its counters exist
        driver.sweep(finished_before_ms=driver.now_ms + 1)
        count = Counted(engine.table)
        count("submit a job", driver.submit)
        lease = count("lease it", driver.lease_one)
        for index in range(2):
            count(
                "store a segment of 4 KiB of its log", lambda index=index: driver.publish(batch(lease, index, SEGMENT))
            )
        renewal = UpdateJob(leases=(lease.ref,), visibility_ms=VISIBILITY_MS)
        driver.now_ms += 1
        count("renew its lease", lambda: driver.reply(JobsUpdated, renewal))
        last = PublishJobEvents(batches=(batch(lease, 2, SEGMENT),), completions=(completion(lease, 3),))
        count("complete it, with such a segment", lambda: driver.outcome(last))
        driver.now_ms += 1
        sweep = lambda: driver.sweep(finished_before_ms=driver.now_ms)  # noqa: E731
        count("remove it and three such segments", sweep)
        driver.submit()
        (lease,) = driver.lease()
        line = PublishJobEvents(batches=(batch(lease, 0, "a line"),), completions=(completion(lease, 1),))
        count("complete it, with a line of output", lambda: driver.outcome(line))
        driver.now_ms += 1
        count("remove it, with a log that is in its item", sweep)
        count("one of ten jobs of a request: submit", lambda: driver.submit(*["true"] * JOBS), JOBS)
        leases = count("… lease", lambda: driver.lease(slots=JOBS), JOBS)
        ends = PublishJobEvents(
            batches=tuple(batch(lease, 0, "a line") for lease in leases),
            completions=tuple(completion(lease, 1) for lease in leases),
        )
        count("… complete, with a line of output", lambda: driver.outcome(ends), JOBS)
        driver.now_ms += 1
        count("… remove", sweep, JOBS)
        count("a broker that lives, each second", lambda: driver.apply(Beat()))
    assert count == table()
