"""Health: named conditions, and one line for each when it begins and when it is over."""

from __future__ import annotations

from airunner.broker.health import Health, Status


def test_a_condition_is_said_once_when_it_begins_and_once_when_it_is_over() -> None:
    said: list[str] = []
    health = Health(said.append)
    assert health.status is Status.OK
    health.degrade("disk", "4 MiB are free")
    health.degrade("disk", "3 MiB are free")
    assert (health.status, health.conditions) == (Status.DEGRADED, {"disk": "3 MiB are free"})
    health.clear("disk")
    health.clear("disk")
    assert (health.status, health.conditions) == (Status.OK, {})
    assert said == ["degraded: disk: 4 MiB are free", "no longer degraded: disk"]
