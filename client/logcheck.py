"""Log check: verifies a job's log, event by event, against its agents' signatures and a head that was saved. Pure.

```
 pages ──► sequences: 1, 2, 3, … ──► attempts: one after the other ──► LOG_SIGNED: tags, head, signature
                                 └─► head of the whole log ──► the head that was saved
```

A signature covers the agent's events of its attempt. The broker's own events (their kinds begin with JOB_) are covered
by a saved head only; without one `BrokerCheck` checks their order, and what they may say. `LogCheck` owns no socket:
`request` says what to ask, `replayed` and `refused` take the broker's answer.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final

import msgspec
from blake3 import blake3
from msgspec import Meta, Struct

from airunner.certs.curve import text_key
from airunner.client.attemptcheck import AttemptCheck, Body, Verify
from airunner.client.brokercheck import BrokerCheck
from airunner.client.logfaults import Entry, Fault, Kind, differences, expected_end
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import BadRequest
from airunner.protocol.events import (
    HEAD_BYTES,
    TAG_BYTES,
    BrokerBody,
    EventBody,
    EventSegment,
    JobExpired,
    JobFinished,
    JobLeased,
    JobReleased,
    JobScheduled,
    JobUnblocked,
    UnknownBody,
    decode_bodies,
)
from airunner.protocol.job import Job
from airunner.protocol.logchain import START, events_in
from airunner.protocol.names import Positive
from airunner.protocol.replies import JobEventsReplayed
from airunner.protocol.requests import REPLAY_BYTES_MAX, ReplayJobEvents

FAULTS_MAX: Final = 1_000  # faults that are named; more are counted
UNREAD_MAX: Final = 4_096  # unreadable events in a row that keep their place
SHIFT_MAX: Final = 64  # events by which a log that has grown since its head was saved may have become longer otherwise
HEAD_FORMAT: Final = "airunner-head-1"
_UNREAD: Final = bytes(HEAD_BYTES)  # leaf of an event that is missing or cannot be read


class SavedHead(Struct, frozen=True, kw_only=True):
    """Head of a log up to an event, as `verify --save-head` writes it; with the tags that tell which event differs."""

    format: str = HEAD_FORMAT
    job_id: str
    sequence: Positive  # of the last event
    head: Annotated[str, Meta(pattern=f"^[0-9a-f]{{{2 * HEAD_BYTES}}}$")]
    tags: str  # base64


class LogCheck:
    """Check of the log of a job, with the signatures that `verify` accepts."""

    def __init__(self, job: Job, verify: Verify, saved: SavedHead | None = None) -> None:
        self.attempts: list[AttemptCheck] = []
        self.faults: list[Fault] = []
        self._named: set[int] = set()  # the sequences in these
        self.more_faults = 0
        self.finished: JobFinished | None = None
        self.events = 0
        self.job = job
        self._verify = verify
        self._broker = BrokerCheck(job)
        self._saved = saved
        self._last_sequence = job.last_sequence
        self._next = 1
        self._unread = False  # whether the last event could not be read
        self._held: EventSegment | None = None  # the last segment
        self._hasher = blake3(START)
        self._tags = bytearray()
        self._entries: list[Entry] = []  # up to the saved head
        self._head_then = b""  # the head at the sequence of the saved one
        self.done = False  # whether the log was read to its end
        self._gap: tuple[int, int] | None = None  # the last event known to be unreadable, a readable one behind it or 0

    # --- what to ask, and the answers ---

    def request(self, bytes_max: int = REPLAY_BYTES_MAX) -> ReplayJobEvents:
        """Return the next request, until the check is `done`."""
        return ReplayJobEvents(job_id=self.job.id, from_sequence=self._asked, bytes_max=bytes_max, zstd=True)

    @property
    def _asked(self) -> int:
        """The sequence to ask from: the next, or one by which the end of a gap is found, in ever longer steps."""
        begin = self._next if self._held is None else self._held.next_sequence
        if self._gap is None:
            return begin
        unread, read = self._gap
        if read:
            return max(unread + 1, (unread + read) // 2)
        return min(2 * unread - begin + 1, self._last_sequence + 1)

    def replayed(self, page: JobEventsReplayed) -> None:
        """Check the events of a page."""
        if self._gap is not None:
            (unread, _), asked = self._gap, self._asked
            if asked > unread + 1:
                self._gap = (unread, asked)
                return
            self._gap = None
            self._release()
            self._unreadable(asked - self._next, Kind.GONE)
        self._last_sequence = page.last_sequence
        for segment in page.runs:
            self._segment(segment)
        if page.next_sequence > page.last_sequence or not page.runs:
            self._end(finished=page.finished)

    def refused(self) -> None:
        """Note that the broker has no readable event where it was asked: the next request looks behind it."""
        asked = self._asked
        self._gap = (asked, self._gap[1] if self._gap is not None else 0)
        if asked > self._last_sequence:
            self._end(finished=False)

    # --- events ---

    def _segment(self, segment: EventSegment) -> None:
        """Check a segment once the next is here, whose attempt shows whether it begins one."""
        if self._held is not None:
            self._read(self._held, segment.attempt)
        self._held = segment

    def _release(self) -> None:
        """Check the last segment: none follows it directly."""
        if self._held is not None:
            self._read(self._held, None)
            self._held = None

    def _read(self, segment: EventSegment, following: int | None) -> None:
        """Check a segment; `following`: the attempt of the next."""
        if segment.first_sequence > self._next:
            self._unreadable(segment.first_sequence - self._next, Kind.MISSING)
        end = self._next + segment.count
        try:
            events = events_in(segment.events)
        except (BadRequest, *UNDECODABLE):
            self._unreadable(segment.count, Kind.UNREADABLE)
            return
        bodies = _bodies(segment.events, events)
        self._enter(segment, bodies[0] if bodies else None, following)
        for at, (event, body) in enumerate(zip(events, bodies, strict=True)):
            if self._next == end:
                self._blame(Fault(Kind.ADDED, segment.attempt, end - 1, end - 1))
                break
            if at and isinstance(body, JobLeased):
                self._blame(Fault(Kind.ADDED, segment.attempt, self._next, self._next, "JOB_LEASED begins an attempt"))
            self._event(blake3(event).digest(), body)
        if self._next < end:
            self._unreadable(end - self._next, Kind.MISSING)

    def _enter(self, segment: EventSegment, first: Body, following: int | None) -> None:
        """Begin the attempt of a segment whose `first` event is its JOB_LEASED, or stands where that should."""
        number, unread = segment.attempt, self._unread
        self._unread = False
        row = Fault(Kind.CHANGED, number, self._next, self._next + segment.count - 1, "its attempt")
        leased = isinstance(first, JobLeased)
        goes_on = number > self._attempt and (unread or (following == number and not isinstance(first, BrokerBody)))
        agent = first.agent if isinstance(first, JobLeased) else "an unknown agent"
        if leased and number == self._attempt + 1:
            self._lease(number, agent)
        elif goes_on:
            if not unread:
                why = f"attempt {number - 1} is missing" if leased else "JOB_LEASED begins an attempt"
                self._blame(row._replace(last=row.first, why=why))
            self._lease(number, agent)
        elif leased and number > self._attempt:
            self._blame(row)
            self._lease(self._attempt + 1, agent)
        elif leased or number != self._attempt:
            self._blame(row)

    @property
    def _attempt(self) -> int:
        return self.attempts[-1].attempt if self.attempts else 0

    def _event(self, leaf: bytes, body: Body) -> None:
        if self.finished is not None:
            self._blame(Fault(Kind.ADDED, self._attempt, self._next, self._next, "the job had finished"))
        entry = self._counted(leaf)
        if body is None and leaf != _UNREAD:
            self._blame(entry.fault(Kind.UNREADABLE))
        if body is not None and _is_brokers(body):
            self._brokers(entry, body)
            return
        late = self._broker.agents(body)
        if self.attempts:
            if late:
                self._blame(entry.fault(Kind.ADDED, late))
            self._blame(*self.attempts[-1].add(entry, leaf, body))
        elif body is not None:
            self._blame(entry.fault(Kind.ADDED, "no attempt had begun"))

    def _lease(self, attempt: int, agent: str) -> None:
        if self.attempts:
            self.attempts[-1].running = False
        self.attempts.append(AttemptCheck(self.job.id, attempt, agent, self._verify))

    def _counted(self, leaf: bytes) -> Entry:
        """Count an event in the head of the whole log."""
        bound = blake3(self._attempt.to_bytes(8, "big") + leaf).digest()
        self._hasher.update(bound)
        self._tags += bound[:TAG_BYTES]
        if self._saved is not None and self._next <= self._saved.sequence + SHIFT_MAX:
            self._entries.append(Entry(self._next, self._attempt, bound[:TAG_BYTES]))
            if self._next == self._saved.sequence:
                self._head_then = self._hasher.digest()
        entry = Entry(self._next, self._attempt, b"" if leaf == _UNREAD else leaf[:TAG_BYTES])
        self._next += 1
        self.events += leaf != _UNREAD
        return entry

    def _brokers(self, entry: Entry, body: EventBody | UnknownBody) -> None:
        """Check an event of the broker's."""
        last = self.attempts[-1].last if self.attempts and not self.attempts[-1].over else None
        if why := self._broker.add(entry.sequence, body, None if last is None else last.result):
            self._blame(entry.fault(Kind.CHANGED, why))
        self._leave(body)
        if isinstance(body, JobFinished):
            self.finished = body

    def _leave(self, body: EventBody | UnknownBody) -> None:
        """End the attempt that runs, if this event of the broker's ends it."""
        last = self.attempts[-1] if self.attempts else None
        if last is None or not last.running:
            return
        if isinstance(body, JobReleased | JobExpired):
            last.over = "was released" if isinstance(body, JobReleased) else "expired: its agent was lost"
        last.running = not isinstance(body, JobReleased | JobExpired | JobFinished | JobScheduled | JobUnblocked)

    def _unreadable(self, count: int, kind: Kind) -> None:
        """Count events that are missing or cannot be read: they keep their places."""
        self._unread = True
        self._blame(Fault(kind, self._attempt, self._next, self._next + count - 1))
        for _ in range(min(count, UNREAD_MAX)):
            self._event(_UNREAD, None)
        self._next += max(0, count - UNREAD_MAX)

    # --- the end ---

    def _end(self, *, finished: bool) -> None:
        self.done = True
        self._release()
        if self._saved is not None:
            self._blame(*self._since(self._saved))
        ended = finished or self.job.state.terminal
        if ended and self.finished is None and self._next - 1 not in self._named:
            self._blame(Fault(Kind.MISSING, self._attempt, self._next, self._next, "JOB_FINISHED ends a log"))
        self._entries.clear()

    def _since(self, saved: SavedHead) -> Iterable[Fault]:
        """Compare the log with the saved head."""
        tags = b64decode(saved.tags)
        expected = [tags[at : at + TAG_BYTES] for at in range(0, len(tags), TAG_BYTES)]
        end = expected_end(expected, self._entries, SHIFT_MAX)
        faults = list(differences(expected, self._entries[:end], 0))
        if not faults and self._head_then.hex() != saved.head:
            faults = [Fault(Kind.CHANGED, self._attempt, 1, saved.sequence, "at least one of them")]
        return faults

    def _blame(self, *faults: Fault) -> None:
        """Note faults; of events that are named already the first reason stays."""
        for fault in faults:
            sequences = range(fault.first, min(fault.last + 1, fault.first + UNREAD_MAX))
            if self._named.issuperset(sequences):
                continue
            if len(self.faults) < FAULTS_MAX:
                self.faults.append(fault)
                self._named.update(sequences)
            else:
                self.more_faults += 1

    @property
    def head(self) -> SavedHead:
        """The head of the log, to save."""
        tags = b64encode(self._tags).decode()
        return SavedHead(job_id=self.job.id, sequence=self._next - 1, head=self._hasher.hexdigest(), tags=tags)

    def unproven(self, signers: Mapping[bytes, str]) -> list[str]:
        """Say what keeps the log from being proven by signatures of these signers, attempt by attempt.

        An attempt that was released or has expired need not be signed, if another is.
        """
        said = [_unproven(attempt, signers) for attempt in self.attempts]
        said += [fault.text for attempt in self.attempts for fault in attempt.unsigned]
        said = [text for text in said if text]
        if not said and self.attempts and not any(attempt.complete for attempt in self.attempts):
            said.append("no attempt has ended by itself, so none is signed to its end")
        return said + self._broker.unproven


def _unproven(attempt: AttemptCheck, signers: Mapping[bytes, str]) -> str:
    name = f"attempt {attempt.attempt}"
    if attempt.signer and attempt.signer not in signers:
        return f"{name} is signed with a key that is not in certs/signers: {text_key(attempt.signer)}"
    if attempt.complete or attempt.over:
        return ""
    if attempt.running:
        return f"{name} runs: its log is signed to the end when it ends"
    if not attempt.signer:
        return f"{name} is not signed: its agent or broker is older, or the signature was removed"
    return f"the end of {name} is not signed"


def _bodies(batch: bytes, events: Sequence[msgspec.Raw]) -> Sequence[Body]:
    """Decode the events of a batch, each by itself if one of them is damaged: that is None."""
    try:
        return decode_bodies(batch)
    except BadRequest:
        return [_body(event) for event in events]


def _body(event: msgspec.Raw) -> Body:
    try:
        return decode_bodies(b"\x91" + bytes(event))[0]  # an array of one
    except BadRequest:
        return None


def _is_brokers(body: EventBody | UnknownBody) -> bool:
    kind = body.kind if isinstance(body, UnknownBody) else str(type(body).__struct_config__.tag)
    return kind.startswith("JOB_")


def parse_head(content: bytes, where: str) -> SavedHead:
    """Parse a saved head. Raises `ValueError`: it is none."""
    try:
        saved = msgspec.json.decode(content, type=SavedHead)
        whole = saved.format == HEAD_FORMAT and len(b64decode(saved.tags, validate=True)) == saved.sequence * TAG_BYTES
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(f"{where} is no head of a log: {error}") from error
    if not whole:
        raise ValueError(f"{where} is no head of a log: it was changed, or made by another version")
    return saved
