"""Outbox: sends lifecycle events to an event bus of EventBridge, each at least once, with its sequence.

```
 Ledger ─ changes ─► Outbox ─ outbox ─► engine: events that were stored and not acknowledged
                       │   ◄──────────┘
                       ├─ put ═══════► event bus: a verdict on each
                       └─ published ─► engine: drops them with this broker's next write
```

The engine writes what is to be sent in the transaction that writes the events, so none is lost when a broker dies: who
adopts its jobs sends what it left. Between the verdict and the drop it may be sent again; sequences show it. The bus
keeps no order, as EventBridge has none.

An event has the fields that clients see in the job's log, and no others: no token, no output, nothing of the spec but
tenant and queue. Of an event that only newer software knows just its kind and time are sent.

A refused entry is sent again after growing random pauses, for as long as it takes: throttling passes, and a missing
right can be given. Only an entry that EventBridge calls invalid is left out, with a line: it would stop all others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple, get_args

import anyio
import msgspec

from airunner.broker.aws.ports import BATCH_BYTES_MAX, BATCH_MAX, AwsFault, Entry, EventBus, Verdict
from airunner.broker.aws.services import SOURCE, offloaded
from airunner.broker.counts import Counts
from airunner.broker.health import Health
from airunner.broker.offload import Offload
from airunner.broker.store.contract import Engine, StoreAway
from airunner.broker.store.rows import Changes, OutboxEntry
from airunner.protocol.errors import BadRequest
from airunner.protocol.events import BrokerBody, EventBody, UnknownBody, decode_bodies
from airunner.transport.backoff import Backoff
from airunner.transport.bell import Bell

PAGE_ENTRIES: Final = 100  # of the engine's outbox that are read at once
LOOK_S: Final = (
    10.0  # between two looks of which nobody spoke: an engine finds entries in a take-over and an outage too
)
TIME_BYTES: Final = 14  # that EventBridge counts for an entry's time
PAUSE_FIRST_MS: Final = 200  # bound of the first pause after a refusal
PAUSE_LAST_MS: Final = 30_000
CONDITION: Final = "events"  # name of the condition in /health
INVALID: Final = frozenset({"InvalidArgument", "MalformedDetail"})
"""Codes of entries that EventBridge will never accept."""

LIFECYCLE: Final = frozenset(str(body.__struct_config__.tag) for body in get_args(BrokerBody))
"""Kinds of the events that brokers write, which are the lifecycle of a job."""


class _Event(NamedTuple):
    """Event to send, and the entry of the outbox that it is in."""

    entry: Entry
    source: OutboxEntry


class Outbox:
    """Outbox actor; `offload` runs the engine's methods, and `say` gets a line for an event that is left out."""

    def __init__(
        self,
        engine: Engine,
        bus: EventBus,
        offload: Offload,
        counts: Counts,
        health: Health,
        random: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._offload = offload
        self._counts = counts
        self._health = health
        self._say = say
        self._backoff = Backoff(random, PAUSE_FIRST_MS, PAUSE_LAST_MS)
        self._more = Bell()
        self._due = True
        self._taken_over = False

    def note(self, changes: Changes) -> None:
        """Note the lifecycle events in the changes of a batch. The first is the take-over: it finds what was left."""
        if changes.lifecycle or not self._taken_over:
            self._taken_over = True
            self.look()

    def look(self) -> None:
        """Look for entries: a batch has added some, or this broker has adopted another's jobs."""
        self._due = True
        self._more.ring()

    async def run(self) -> None:
        """Send entries until cancelled."""
        while True:
            with anyio.move_on_after(LOOK_S):
                while not self._due:
                    await self._more.wait()
            self._due = False
            try:
                entries = await offloaded(self._offload, partial(self._engine.outbox, PAGE_ENTRIES))
            except StoreAway:  # the Ledger reports it
                self._due = True
                await self._backoff.pause()
                continue
            if entries:
                self._due = True  # there may be more
                await self._publish(entries)

    async def _publish(self, entries: Sequence[OutboxEntry]) -> None:
        """Send entries until the bus has accepted all of their events."""
        events = [event for entry in entries for event in _events_of(entry)]
        await self._acknowledge(entries, events)  # those without an event to send
        while events:
            left: list[_Event] = []
            for batch in batches(events):
                left += await self._put(batch)
            await self._acknowledge({event.source: None for event in events}, left)
            if len(left) < len(events):  # the bus has taken some: it is asked too much, but not closed
                self._backoff.reset()
            events = left
            if left:
                await self._backoff.pause()
        self._backoff.reset()
        self._health.clear(CONDITION)

    async def _acknowledge(self, entries: Iterable[OutboxEntry], left: Iterable[_Event]) -> None:
        """Tell the engine of which entries no event is left to send."""
        kept = {event.source for event in left}
        if sent := [entry for entry in entries if entry not in kept]:
            with suppress(StoreAway):  # what is not dropped now is sent again later
                await offloaded(self._offload, partial(self._engine.published, sent))

    async def _put(self, batch: Sequence[_Event]) -> list[_Event]:
        """Send a batch, and return the events that have to be sent again."""
        try:
            verdicts = await self._bus.put([event.entry for event in batch])
        except AwsFault as fault:
            self._degrade(str(fault))
            return list(batch)
        left: list[_Event] = []
        for event, verdict in zip(batch, verdicts, strict=True):
            if not verdict.code:
                self._counts.add("events_published")
            elif verdict.code in INVALID:
                self._leave_out(event, verdict)
            else:
                self._degrade(f"{verdict.code}: {verdict.words}")
                left.append(event)
        return left

    def _leave_out(self, event: _Event, verdict: Verdict) -> None:
        self._counts.add("events_left_out")
        self._say(f"EventBridge refuses an event of job {event.source.job_id}: {verdict.code}: {verdict.words}")

    def _degrade(self, words: str) -> None:
        self._counts.add("events_refused")
        self._health.degrade(CONDITION, f"the event bus does not accept events: {words}; they are kept and sent later")


def _events_of(source: OutboxEntry) -> Iterator[_Event]:
    """Make what is sent of an entry; events that are not of a job's lifecycle are left out."""
    try:
        bodies = decode_bodies(source.events)
    except BadRequest:  # a damaged segment, which readers of the log are told of
        return
    for sequence, body in enumerate(bodies, source.first_sequence):
        fields = _fields(body)
        kind = str(fields["kind"])
        if kind in LIFECYCLE or isinstance(body, UnknownBody):
            places = {"tenant": source.tenant, "queue": source.queue, "job_id": source.job_id, "sequence": sequence}
            detail = json.dumps({**fields, **places}, separators=(",", ":"))
            yield _Event(Entry(kind, body.timestamp_ms, detail), source)


def _fields(body: EventBody | UnknownBody) -> dict[str, object]:
    """Return the fields of an event; of an unknown one only those that are known to be public."""
    if isinstance(body, UnknownBody):
        return {"kind": body.kind, "timestamp_ms": body.timestamp_ms}
    fields: dict[str, object] = msgspec.to_builtins(body)
    return fields


def batches(events: Iterable[_Event]) -> Iterator[list[_Event]]:
    """Divide events into batches that EventBridge takes in one call."""
    batch: list[_Event] = []
    batch_bytes = 0
    for event in events:
        size_bytes = size_of(event.entry)
        if batch and (len(batch) == BATCH_MAX or batch_bytes + size_bytes > BATCH_BYTES_MAX):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(event)
        batch_bytes += size_bytes
    if batch:
        yield batch


def size_of(entry: Entry) -> int:
    """Count the bytes of an entry as EventBridge does (its user guide, "Calculating PutEvents event entry size")."""
    return TIME_BYTES + len(SOURCE) + len(entry.kind.encode()) + len(entry.detail.encode())
