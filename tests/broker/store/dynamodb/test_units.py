"""What a job costs on DynamoDB, in write units."""

from __future__ import annotations

from collections.abc import Callable

from airunner.broker.store.batch import Store
from airunner.protocol.fields import JobSpec
from airunner.protocol.requests import PublishJobEvents, UpdateJob
from tests.broker.store.dynamodb.opened import opened
from tests.conformance.driving import VISIBILITY_MS, Driver, batch, completion

SPEC = JobSpec(command="make test", repository="https://git.example.com/team/project.git", commit="main")
PIECE = "x" * 4_096
EACH = {"enqueue": 8, "lease": 8, "publish": 14, "publish and complete": 16, "renew": 2}
"""Write units of each step, for a broker that has done something for the tenant before."""


def test_a_job_with_three_segments_of_4_kib_takes_60_write_units():
    with opened() as engine:
        driver = Driver(Store(engine))

        def units(step: Callable[[], object]) -> float:
            before = engine.table.units
            step()
            return engine.table.units - before

        first = units(lambda: driver.enqueue(SPEC))
        assert first == EACH["enqueue"] + 2, "the tenant is new"
        driver.complete(driver.lease_one())
        assert units(lambda: driver.enqueue(SPEC)) == EACH["enqueue"]
        leases = []
        assert units(lambda: leases.append(driver.lease_one())) == EACH["lease"]
        (lease,) = leases
        for index in (0, 1):
            assert units(lambda index=index: driver.publish(batch(lease, index, PIECE))) == EACH["publish"]
        renewal = UpdateJob(leases=(lease.ref,), visibility_ms=VISIBILITY_MS)
        driver.now_ms += 1
        assert units(lambda: driver.reply(object, renewal)) == EACH["renew"]
        last = PublishJobEvents(batches=(batch(lease, 2, PIECE),), completions=(completion(lease, 3),))
        assert units(lambda: driver.reply(object, last)) == EACH["publish and complete"]
        assert EACH["enqueue"] + EACH["lease"] + 2 * EACH["publish"] + EACH["publish and complete"] <= 60


def test_more_jobs_in_a_request_cost_less_each():
    with opened() as engine:
        driver = Driver(Store(engine))
        driver.enqueue(SPEC)
        before = engine.table.units
        driver.enqueue(*[SPEC] * 64)
        assert (engine.table.units - before) / 64 < EACH["enqueue"] / 1.9
