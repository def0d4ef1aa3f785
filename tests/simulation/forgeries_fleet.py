"""Forged histories of brokers that share a database; see `forgeries`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from msgspec.structs import replace

from airunner.protocol.errors import NoSpace
from tests.simulation.evidence import Evidence
from tests.simulation.forgeries import FORGERIES
from tests.simulation.forging import Forgery, changed, dropped, forged, found
from tests.simulation.history import Committed, History, Leased, RefusedReply

ANOTHER: Final = "another job"


def leases(commit: Committed) -> bool:
    return bool(commit.leased)


def twice(good: Evidence) -> Iterator[History]:
    """A request is granted another job, too."""
    for commit in found(good, Committed, leases):
        more = tuple((ANOTHER, 1, request_id) for _, _, request_id in commit.leased)
        yield forged(good, new=[replace(commit, leased=more, ended=())])


def refused(good: Evidence) -> Iterator[History]:
    """What was done is said to have failed."""
    common: dict[str, Any] = {"machine": "client", "broker": "broker", "asked_at_ms": 0, "kind": "EnqueueJob"}
    for commit in found(good, Committed, lambda one: one.answered):
        told = RefusedReply(at_ms=-1, request_id=commit.answered[0], code=NoSpace.code, **common)
        yield forged(good, new=[replace(told, broker=commit.broker)])


def calm(record: Leased) -> bool:
    return record.at_ms > CALM_MS


CALM_MS: Final = 92_000  # then every world has healed, and its brokers have returned
FLEET_FORGERIES: Final[dict[str, dict[str, Forgery]]] = {
    **FORGERIES,
    "attempts_rise_in_the_database": {
        "an attempt is left out": changed(
            Committed, leases, leased=lambda commit: tuple((job, attempt + 1, by) for job, attempt, by in commit.leased)
        )
    },
    "the_dead_commit_nothing": {
        "a broker that commits was adopted": changed(Committed, leases, adopted=lambda commit: (commit.broker,))
    },
    "a_request_leases_once": {"a request is granted another job": twice},
    "a_refusal_means_that_nothing_was_done": {"what was done is refused": refused},
    "a_pause_holds_at_every_broker": {
        "an opening is not stored": changed(Committed, lambda commit: commit.modes, modes=())
    },
    "no_job_waits_beside_a_parked_agent": {
        "a job is never leased": changed(Committed, lambda commit: commit.unready, unready=())
    },
    "every_parked_request_is_answered": {"a request is forgotten": dropped(Leased, calm)},
}
