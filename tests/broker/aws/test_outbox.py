"""Each lifecycle event reaches the bus at least once, with its sequence, and nothing that a client may not see does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest

from airunner.broker.aws.outbox import CONDITION, LIFECYCLE, LOOK_S, PAGE_ENTRIES, Outbox
from airunner.broker.aws.ports import BATCH_MAX, AwsFault, Entry, Verdict
from airunner.broker.counts import Counts
from airunner.broker.health import Health
from airunner.broker.store.contract import StoreAway
from airunner.broker.store.rows import Changes, OutboxEntry
from airunner.protocol.events import (
    BrokerBody,
    JobCancelRequested,
    JobExpired,
    JobFinished,
    JobLeased,
    JobReleased,
    JobScheduled,
    JobUnblocked,
    Output,
    Stream,
    encode_bodies,
)
from airunner.protocol.job import JobState, Reason
from airunner.protocol.names import JobId
from tests.broker.aws.queues import MemoryBus
from tests.broker.stage import Disk, acting
from tests.conformance.memory import MemoryEngine

NOW_MS = 1_760_000_000_000
BODIES: Sequence[BrokerBody] = (
    JobScheduled(timestamp_ms=NOW_MS, queue="ci", not_before_ms=NOW_MS + 1),
    JobLeased(timestamp_ms=NOW_MS + 1, agent="builder-1"),
    JobReleased(timestamp_ms=NOW_MS + 2, lost=True),
    JobExpired(timestamp_ms=NOW_MS + 3),
    JobCancelRequested(timestamp_ms=NOW_MS + 4),
    JobFinished(timestamp_ms=NOW_MS + 5, state=JobState.FAILED, exit_code=3, reason=Reason.EXIT_CODE),
    JobUnblocked(timestamp_ms=NOW_MS + 6),
)


class Engine(MemoryEngine):
    """An engine with an outbox that is filled by the test."""

    announces = True

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[OutboxEntry] = []
        self.asked = 0
        self.away = 0

    def outbox(self, limit: int) -> list[OutboxEntry]:
        self.asked += 1
        if self.away:
            self.away -= 1
            raise StoreAway
        return self.kept[:limit]

    def published(self, entries: Sequence[OutboxEntry]) -> None:
        self.kept = [entry for entry in self.kept if entry not in entries]


class Site:
    def __init__(self) -> None:
        self.engine, self.bus = Engine(), MemoryBus()
        self.counts, self.health = Counts(), Health()
        self.said: list[str] = []
        self.outbox = Outbox(self.engine, self.bus, Disk(), self.counts, self.health, lambda: 0.5, self.said.append)

    def commit(self, *bodies: BrokerBody, first: int = 1, job: str = "j") -> None:
        """Store events in one segment, and publish the news of the batch."""
        self.keep(encode_bodies(bodies), first, job)
        self.outbox.note(Changes(lifecycle=[(1, first + at) for at in range(len(bodies))]))

    def keep(self, events: bytes, first: int = 1, job: str = "j") -> None:
        self.engine.kept.append(
            OutboxEntry(tenant="acme", job_id=JobId(job), queue="ci", first_sequence=first, events=events)
        )

    @property
    def details(self) -> list[dict[str, object]]:
        return [json.loads(entry.detail) for entry in self.bus.accepted]

    @property
    def sequences(self) -> list[object]:
        return [detail["sequence"] for detail in self.details]


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[Site]:
    async with acting(site.outbox.run):
        yield site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running(Site()) as opened:
        yield opened


async def pass_(seconds: float) -> None:
    await anyio.sleep(seconds)  # virtual


async def test_each_event_is_sent_with_its_sequence_and_its_public_fields(site: Site) -> None:
    site.commit(*BODIES, first=7)
    await pass_(1)
    places = {"tenant": "acme", "queue": "ci", "job_id": "j"}
    assert [{**detail, "sequence": None} for detail in site.details] == [
        {**places, "sequence": None, **fields}
        for fields in (
            {"kind": "JOB_SCHEDULED", "timestamp_ms": NOW_MS, "not_before_ms": NOW_MS + 1},
            {"kind": "JOB_LEASED", "timestamp_ms": NOW_MS + 1, "agent": "builder-1"},
            {"kind": "JOB_RELEASED", "timestamp_ms": NOW_MS + 2, "lost": True},
            {"kind": "JOB_EXPIRED", "timestamp_ms": NOW_MS + 3},
            {"kind": "JOB_CANCEL_REQUESTED", "timestamp_ms": NOW_MS + 4},
            {
                "kind": "JOB_FINISHED",
                "timestamp_ms": NOW_MS + 5,
                "state": "FAILED",
                "exit_code": 3,
                "reason": "exit-code",
            },
            {"kind": "JOB_UNBLOCKED", "timestamp_ms": NOW_MS + 6},
        )
    ]
    assert site.sequences == [7, 8, 9, 10, 11, 12, 13]
    assert [(entry.kind, entry.timestamp_ms) for entry in site.bus.accepted[:2]] == [
        ("JOB_SCHEDULED", NOW_MS),
        ("JOB_LEASED", NOW_MS + 1),
    ]
    assert {entry.kind for entry in site.bus.accepted} == LIFECYCLE
    assert (site.engine.kept, site.counts["events_published"]) == ([], len(BODIES))


async def test_the_console_and_what_only_newer_software_knows_are_not_sent(site: Site) -> None:
    site.keep(encode_bodies([Output(timestamp_ms=NOW_MS, stream=Stream.STDOUT, data=b"password")]))
    newer = b"\x92" + b"\x83\xa4kind\xa7JOB_NEW\xactimestamp_ms\x05\xa6secret\xa3abc" + encode_bodies(BODIES[3:4])[1:]
    site.keep(newer, first=2)
    site.keep(b"\xc1 damaged")
    site.outbox.look()
    await pass_(1)
    assert [(detail["kind"], detail["sequence"]) for detail in site.details] == [("JOB_NEW", 2), ("JOB_EXPIRED", 3)]
    assert site.details[0].keys() == {"kind", "timestamp_ms", "tenant", "queue", "job_id", "sequence"}
    assert not site.engine.kept


async def test_what_was_left_is_sent_after_the_take_over_and_after_an_adoption() -> None:
    site = Site()
    async with running(site):
        site.keep(encode_bodies(BODIES[:1]))
        await pass_(1)
        assert site.sequences == []
        site.outbox.note(Changes())
        await pass_(1)
        assert site.sequences == [1]
        site.outbox.note(Changes())
        site.keep(encode_bodies(BODIES[:1]), first=5)
        site.outbox.look()
        await pass_(1)
        assert site.sequences == [1, 5]


async def test_what_an_engine_finds_in_an_outage_is_sent_although_nobody_speaks_of_it(site: Site) -> None:
    await pass_(1)
    site.keep(encode_bodies(BODIES[:1]))
    await pass_(LOOK_S)
    assert site.sequences == [1]
    await pass_(600)
    assert site.engine.asked <= 65


async def test_many_events_are_sent_in_calls_that_the_bus_takes(site: Site) -> None:
    for at in range(3 * PAGE_ENTRIES):
        site.commit(BODIES[0], first=at + 1)
    await pass_(1)
    assert site.sequences == list(range(1, 3 * PAGE_ENTRIES + 1))
    assert site.bus.calls == 3 * PAGE_ENTRIES / BATCH_MAX
    assert site.engine.asked <= 5


async def test_large_events_take_more_calls(site: Site) -> None:
    for at in range(4):
        site.commit(JobLeased(timestamp_ms=NOW_MS, agent="x" * 100_000), first=at + 1)
    await pass_(1)
    assert (site.sequences, site.bus.calls) == ([1, 2, 3, 4], 2)


async def test_what_is_refused_entry_by_entry_is_sent_again_and_the_rest_is_not(site: Site) -> None:
    refusals = {"2": 3, "5": 1}

    def judge(entry: Entry) -> Verdict:
        sequence = str(json.loads(entry.detail)["sequence"])
        refusals[sequence] = refusals.get(sequence, 0) - 1
        return Verdict("ThrottlingException", "slower") if refusals[sequence] >= 0 else Verdict()

    site.bus.judge = judge
    for at in range(6):
        site.commit(BODIES[3], first=at + 1)
    await pass_(30)
    assert sorted(map(int, map(str, site.sequences))) == [1, 2, 3, 4, 5, 6]
    assert (site.counts["events_refused"], site.engine.kept, site.health.conditions) == (4, [], {})


async def test_an_entry_is_kept_until_all_of_its_events_are_accepted(site: Site) -> None:
    site.bus.judge = lambda entry: Verdict("InternalFailure", "") if entry.kind == "JOB_LEASED" else Verdict()
    site.commit(*BODIES[:2])
    site.commit(BODIES[3], first=3)
    await pass_(60)
    assert [entry.first_sequence for entry in site.engine.kept] == [1]
    assert site.sequences == [1, 3]
    site.bus.judge = lambda _entry: Verdict()
    await pass_(60)
    assert (site.engine.kept, site.sequences) == ([], [1, 3, 2])


async def test_a_bus_that_is_away_is_reported_and_loses_nothing(site: Site) -> None:
    site.bus.fault = AwsFault("AccessDenied: no PutEvents")
    site.commit(*BODIES)
    await pass_(3_600)
    assert "AccessDenied: no PutEvents; they are kept and sent later" in site.health.conditions[CONDITION]
    assert site.bus.calls < 300, "its pauses grow"
    assert len(site.engine.kept) == 1
    site.bus.fault = None
    await pass_(60)
    assert (site.sequences, site.engine.kept, site.health.conditions) == ([*range(1, len(BODIES) + 1)], [], {})


async def test_an_event_that_the_bus_calls_invalid_stops_no_other(site: Site) -> None:
    site.bus.judge = lambda entry: Verdict("MalformedDetail", "no") if entry.kind == "JOB_LEASED" else Verdict()
    site.commit(*BODIES[:3])
    await pass_(1)
    assert (site.sequences, site.engine.kept) == ([1, 3], [])
    assert site.said == ["EventBridge refuses an event of job j: MalformedDetail: no"]
    assert site.counts["events_left_out"] == 1


async def test_a_broker_that_dies_leaves_what_was_not_acknowledged_to_its_adopter() -> None:
    first = Site()
    first.bus.judge = lambda entry: Verdict() if entry.kind == "JOB_SCHEDULED" else Verdict("InternalFailure", "")
    async with running(first):
        first.commit(BODIES[0])
        first.commit(BODIES[3], first=2)
        await pass_(5)
    adopter = Site()
    adopter.engine = first.engine
    adopter.outbox = Outbox(
        first.engine, adopter.bus, Disk(), adopter.counts, adopter.health, lambda: 0.5, adopter.said.append
    )
    async with running(adopter):
        await pass_(1)
    assert (first.sequences, adopter.sequences, first.engine.kept) == ([1], [2], [])


async def test_a_store_that_is_away_is_asked_again(site: Site) -> None:
    site.engine.away = 3
    site.commit(BODIES[3])
    await pass_(60)
    assert (site.sequences, site.engine.away) == ([1], 0)
