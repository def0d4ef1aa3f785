"""Jobs that fall due together end in as many transactions as they take, of many tenants and with large specs too."""

from __future__ import annotations

from airunner.broker.store.batch import Store
from airunner.protocol.fields import JobSpec
from tests.broker.store.dynamodb.opened import opened
from tests.conformance.driving import Driver

LATER_MS = 1_000
STEPS_MAX = 8


def end_all(driver: Driver) -> None:
    driver.now_ms += 20_000
    for _ in range(STEPS_MAX):
        driver.expire()
        if driver.store.engine.next_due_ms() is None:
            return
    raise AssertionError("it comes to an end")


def test_delays_of_many_tenants_that_are_over_at_once():
    with opened() as engine:
        driver = Driver(Store(engine))
        for number in range(70):
            driver.enqueue(JobSpec(command="a", not_before_ms=driver.now_ms + LATER_MS), tenant=f"t{number}")
        end_all(driver)


def test_leases_of_many_tenants_that_are_over_at_once():
    with opened() as engine:
        driver = Driver(Store(engine))
        for number in range(70):
            driver.started(tenant=f"t{number}")
        end_all(driver)


def test_delays_of_jobs_with_large_specs_that_are_over_at_once():
    with opened() as engine:
        driver = Driver(Store(engine))
        for _ in range(6):
            driver.enqueue(*[JobSpec(command="a" * 65_000, not_before_ms=driver.now_ms + LATER_MS)] * 12)
        end_all(driver)
