"""A log's check names each event that was changed, on a real store: by the agent's signatures, and by a saved head."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from airunner.agent.output import logsigning
from airunner.agent.output.logsigning import LogSigning
from airunner.broker.store.batch import Store
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.certs.curve import new_secret, text_key
from airunner.certs.signing import LogSigner, is_signed
from airunner.client import attemptcheck, logcheck
from airunner.client.logcheck import LogCheck, SavedHead, parse_head
from airunner.protocol.compression import compressed, decompressed
from airunner.protocol.errors import BadRequest
from airunner.protocol.events import (
    BrokerBody,
    JobExpired,
    JobFinished,
    JobLeased,
    JobReleased,
    JobScheduled,
    Output,
    ProcessStart,
    Stream,
    encode_bodies,
)
from airunner.protocol.expiry import Expiry
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.jobretry import RetryOn, RetryPolicy
from airunner.protocol.replies import JobLease, Refused
from airunner.protocol.requests import EventBatch, PublishJobEvents, ReleaseJob, ReplayJobEvents
from tests.conformance.driving import Driver, completion

CHANGES = 200
BATCHES = 9
SEED = 17
SIGNER = LogSigner(new_secret())
Row = tuple[int, int, int, bytes]  # first sequence, count, attempt, events


def publish(driver: Driver, lease: JobLease, signer: LogSigner, rng: random.Random, result: Result | None) -> int:
    """Publish the events of an attempt as its agent does, signed to the end with a result; return their number."""
    signing = LogSigning(lease.job_id, lease.attempt, signer)
    index = 0
    for batch in range(BATCHES):
        text = rng.randbytes(40).hex().encode()
        bodies = [Output(timestamp_ms=batch, stream=Stream.STDOUT, data=text * rng.randrange(1, 90))] * (batch % 4)
        bodies = [msgspec.structs.replace(body, timestamp_ms=number) for number, body in enumerate(bodies)]
        start = ProcessStart(timestamp_ms=batch, pid=batch + 1, started_at=1)
        count, raw = signing.encoded([start, *bodies], result if batch == BATCHES - 1 else None)
        raw = compressed(raw) if batch % 3 else raw
        events = EventBatch(lease=lease.ref, first_index=index, count=count, events=raw)
        driver.outcome(PublishJobEvents(batches=(events,)))
        index += count
    return index


class Log:
    """The log of a job, the third attempt of which has ended; and changes of it that are undone."""

    def __init__(self, driver: Driver, engine: SqliteEngine, signer: LogSigner = SIGNER) -> None:
        rng = random.Random(SEED)
        self.driver, self._db = driver, engine._db
        (self.job_id,) = driver.submit()
        for _ in range(2):
            lease = driver.lease_one()
            publish(driver, lease, signer, rng, None)
            driver.outcome(ReleaseJob(lease=lease.ref, lost=True))
        lease, result = driver.lease_one(), Result(exit_code=3, reason=Reason.EXIT_CODE)
        driver.outcome(completion(lease, publish(driver, lease, signer, rng, result), result=result))
        self.rows: list[Row] = [*self._db.execute("SELECT first_sequence, count, attempt, events FROM segment")]
        self.events = events_in(self.rows) or []

    @contextmanager
    def changed(self, rows: list[Row]) -> Iterator[None]:
        self._db.execute("SAVEPOINT changed")
        self._db.execute("DELETE FROM segment")
        self._db.executemany("INSERT INTO segment SELECT number, ?, ?, ?, 0, ? FROM job", rows)
        self._db.execute("UPDATE job SET last_sequence = ?", (max(first + count - 1 for first, count, *_ in rows),))
        yield
        self._db.execute("ROLLBACK TO changed")
        self._db.execute("RELEASE changed")

    def check(self, saved: SavedHead | None = None) -> LogCheck:
        return checked(self.driver, self.job_id, saved)


def checked(driver: Driver, job_id: str, saved: SavedHead | None = None) -> LogCheck:
    check = LogCheck(driver.job(job_id), is_signed, saved)
    while not check.done:
        request: ReplayJobEvents = check.request()
        reply = driver.outcome(request).reply
        check.refused() if isinstance(reply, Refused) else check.replayed(reply)
    return check


def events_in(rows: list[Row]) -> list[tuple[int, bytes]] | None:
    """Every event, with its attempt; None: some cannot be read."""
    found: list[tuple[int, bytes]] = []
    for _, count, attempt, raw in rows:
        try:
            events = msgspec.msgpack.decode(decompressed(raw), type=list[msgspec.Raw])
        except (BadRequest, msgspec.DecodeError):
            return None
        if len(events) != count:
            return None
        found += [(attempt, bytes(event)) for event in events]
    return found


def packed(events: list[tuple[int, bytes]]) -> list[Row]:
    """Rows with these events, one in each."""
    return [(number, 1, attempt, b"\x91" + event) for number, (attempt, event) in enumerate(events, start=1)]


def change(log: Log, rng: random.Random) -> tuple[str, list[Row], set[int]]:
    """Change the log at random; return what was done, the rows, and the sequences that are to be named."""
    rows, events = list(log.rows), list(log.events)
    at, number = rng.randrange(len(rows)), rng.randrange(1, len(events))
    first, count, attempt, raw = rows[at]
    kind = rng.choice(["byte", "byte", "byte", "byte", "row", "event", "doubled", "swapped", "attempt"])
    match kind:
        case "byte":
            place = rng.randrange(len(raw))
            rows[at] = (
                first,
                count,
                attempt,
                raw[:place] + bytes([raw[place] ^ (1 << rng.randrange(8))]) + raw[place + 1 :],
            )
            new = events_in(rows)
            if new is None:
                return kind, rows, {*range(first, first + count)}
            return kind, rows, {each for each, (old, now) in enumerate(zip(events, new, strict=True), 1) if old != now}
        case "row":
            del rows[at]
            return kind, rows, {*range(first, first + count)}
        case "attempt":
            rows[at] = (first, count, attempt + 1, raw)
            return kind, rows, {*range(first, first + count)}
        case "event":
            del events[number]
            return kind, packed(events), {number + 1}
        case "doubled":
            events.insert(number, events[number])
            return kind, packed(events), {number + 1, number + 2}
        case _:
            events[number - 1 : number + 1] = reversed(events[number - 1 : number + 1])
            return kind, packed(events), {number, number + 1, number + 2}  # an agent's event may be missing behind


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    monkeypatch.setattr(logsigning, "SIGN_EVENTS", 12)
    engine = open_sqlite(tmp_path / "store.db")
    with closing(engine):
        yield Log(Driver(Store(engine)), engine)


@pytest.mark.timeout(120)
def test_each_of_200_changes_of_a_store_is_named_by_its_sequence(log: Log) -> None:
    rng = random.Random(SEED)
    true = log.check()
    assert (true.faults, true.unproven({SIGNER.public: "build-7"})) == ([], [])
    signatures = {attempt: at for at, (attempt, event) in enumerate(log.events, start=1) if b"LOG_SIGNED" in event}
    signed = {
        at
        for at, (attempt, event) in enumerate(log.events, start=1)
        if b"JOB_" not in event and at < signatures.get(attempt, 0) + (attempt == 3)
    }
    for _ in range(CHANGES):
        kind, rows, expected = change(log, rng)
        with log.changed(rows):
            by_head = log.check(true.head)
            by_agent = log.check() if expected <= signed else None
        named, said = named_by(by_head), [fault.text for fault in by_head.faults]
        assert named <= expected, (kind, sorted(expected), said)
        assert named == expected or (kind in ("doubled", "swapped") and named), (kind, sorted(expected), said)
        if by_agent is not None and expected:
            said = [fault.text for fault in by_agent.faults] + by_agent.unproven({SIGNER.public: ""})
            assert named_by(by_agent) <= expected, (kind, sorted(expected), said)
            assert said, (kind, sorted(expected))


def named_by(check: LogCheck) -> set[int]:
    return {each for fault in check.faults for each in range(fault.first, fault.last + 1)}


def test_a_broker_that_rewrites_a_log_is_caught(log: Log, tmp_path: Path) -> None:
    first, count, attempt, end = log.rows[-1]
    with log.changed([*log.rows[:-1], (first, count, attempt, end.replace(b"exit_code\x03", b"exit_code\x04"))]):
        (fault,) = log.check().faults
    assert fault.text == f"event {first:,} of attempt 3 is changed: its agent has signed exit-code, exit code 3"
    last = max(at for at, (_, event) in enumerate(log.events) if b"LOG_SIGNED" in event)
    brokers = LogSigner(new_secret())
    events = list(log.events)
    events[last] = (3, events[last][1].replace(SIGNER.public, brokers.public))
    with log.changed(packed(events)):
        assert [fault.text for fault in log.check().faults] == [
            f"event {last + 1:,} of attempt 3 is changed: its signature is wrong"
        ]
    engine = open_sqlite(tmp_path / "forged.db")
    with closing(engine):
        check = Log(Driver(Store(engine)), engine, brokers).check()
    assert check.faults == []
    unproven = check.unproven({SIGNER.public: "build-7"})
    unknown = f"is signed with a key that is not in certs/signers: {text_key(brokers.public)}"
    assert unproven == [f"attempt {attempt} {unknown}" for attempt in (1, 2, 3)]


def test_a_change_with_the_tags_of_the_original_is_found_by_the_heads(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = log.check().head
    for module in (attemptcheck, logcheck):
        monkeypatch.setattr(module, "differences", lambda *_: ())  # as if each tag were right
    (at,) = [at for at, row in enumerate(log.rows) if b"LOG_SIGNED" in decompressed(row[3]) and row[2] == 3][-1:]
    first, count, attempt, events = log.rows[at]
    changed = decompressed(events).replace(b"started_at\x01", b"started_at\x02")
    with log.changed([*log.rows[:at], (first, count, attempt, changed), *log.rows[at + 1 :]]):
        (by_agent,), (by_head,) = log.check().faults, log.check(saved).faults[-1:]
    assert by_agent.text.endswith("of attempt 3 are changed: at least one of them")
    assert by_agent.first <= first <= by_agent.last
    assert by_head.text.startswith("events 1 to ")


def test_what_no_agent_signed_or_ended_is_said(log: Log) -> None:
    attempts = [(attempt.complete, attempt.over, attempt.events > attempt.signed) for attempt in log.check().attempts]
    assert attempts == [(False, "was released", True)] * 2 + [(True, "", False)]
    events = [(attempt, event) for attempt, event in log.events if b"LOG_SIGNED" not in event]
    with log.changed(packed(events)):
        check = log.check()
    assert check.faults == []
    assert check.unproven({SIGNER.public: ""}) == [
        "attempt 3 is not signed: its agent or broker is older, or the signature was removed"
    ]
    runs = [row for row in log.rows if row[2] < 3]
    with log.changed(runs):
        assert log.check().unproven({SIGNER.public: ""}) == [
            "no attempt has ended by itself, so none is signed to its end"
        ]
    with log.changed([*runs, *[row for row in log.rows if row[2] == 3][:3]]):
        assert log.check().unproven({SIGNER.public: ""}) == [
            "attempt 3 runs: its log is signed to the end when it ends"
        ]


COMPLETED = JobFinished(timestamp_ms=1, state=JobState.COMPLETED, exit_code=0)
RELEASED, EXPIRED = JobReleased(timestamp_ms=1), JobExpired(timestamp_ms=1)
LEASED, AGAIN = JobLeased(timestamp_ms=1, agent="evil"), JobScheduled(timestamp_ms=1, queue="default", retry=1)
UNSIGNED = "no agent has signed COMPLETED, exit code 0"


@pytest.mark.parametrize(
    ("end", "attempt", "why"),
    [
        ([RELEASED, COMPLETED], 3, UNSIGNED),
        ([AGAIN, LEASED, EXPIRED, COMPLETED], 4, UNSIGNED),
        ([AGAIN, COMPLETED], 3, UNSIGNED),
        ([COMPLETED], 3, "its agent has signed exit-code, exit code 3"),
        ([LEASED, COMPLETED], 4, "JOB_LEASED cannot stand here, while an attempt runs"),
        ([RELEASED, RELEASED], 3, "JOB_RELEASED cannot stand here, once the attempt was released or has expired"),
        ([JobFinished(timestamp_ms=1, state=JobState.COMPLETED, exit_code=3, reason=Reason.EXIT_CODE)], 3, "is shown"),
    ],
)
def test_a_broker_claims_nothing_that_an_agent_must_sign(
    log: Log, end: Sequence[BrokerBody], attempt: int, why: str
) -> None:
    forged = [(3 if attempt == 3 or body is AGAIN else 4, encode_bodies([body])[1:]) for body in end]
    with log.changed(packed([*log.events[:-1], *forged])):
        assert why in log.check().faults[0].text


def test_a_log_without_its_attempts_is_not_complete(log: Log) -> None:
    with log.changed(packed([log.events[0], (0, encode_bodies([COMPLETED])[1:])])):
        assert [fault.why for fault in log.check().faults] == [UNSIGNED]


def test_a_job_is_shown_as_its_log_ends(log: Log) -> None:
    with log.changed(log.rows):
        log._db.execute("UPDATE job SET result = ?", (msgspec.msgpack.encode(Result(exit_code=4, reason="exit-code")),))
        assert [fault.why for fault in log.check().faults] == ["the job is shown as FAILED, exit-code, exit code 4"]


def test_an_event_of_the_brokers_amid_an_attempt_is_named(log: Log) -> None:
    first, _, attempt, raw = log.rows[-2]
    (*events,) = msgspec.msgpack.decode(decompressed(raw), type=list[msgspec.Raw])
    forged = msgspec.msgpack.encode([*events, msgspec.Raw(encode_bodies([LEASED])[1:])])
    last = log.rows[-1]
    rows = [*log.rows[:-2], (first, len(events) + 1, attempt, forged), (last[0] + 1, *last[1:])]
    with log.changed(rows):
        assert named_by(log.check()) == {first + len(events)}
    note = msgspec.msgpack.encode({"kind": "JOB_NOTE", "timestamp_ms": 1, "message": "all tests passed"})
    with log.changed(packed([*log.events[:4], (1, note), *log.events[4:]])):
        check = log.check()
    assert check.faults == []
    assert check.unproven({SIGNER.public: ""}) == [
        "event 5 is of a kind that this version does not know, and nothing proves it"
    ]


@pytest.mark.parametrize("wrong", [{"sequence": 0, "tags": ""}, {"head": ""}, {"tags": "!" * 9}, {"format": "2"}])
def test_what_is_no_head_is_not_compared_with(log: Log, wrong: dict[str, object]) -> None:
    head = msgspec.to_builtins(log.check().head)
    assert parse_head(msgspec.json.encode(head), "head") == log.check().head
    with pytest.raises(ValueError, match="is no head of a log"):
        parse_head(msgspec.json.encode(head | wrong), "head")


@pytest.mark.unmeasured
def test_a_true_log_is_never_accused(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    retries = RetryPolicy(limit=2, backoff_ms=5_000, on=RetryOn(exit_codes=(3,), reasons=("agent-lost", "timeout")))
    engine, ends = open_sqlite(tmp_path / "store.db"), set()
    with closing(engine):
        driver = Driver(Store(engine))
        for _ in range(200):
            retry, expires = rng.choice([retries, None]), Expiry(after_ms=15_000)
            (job_id,) = driver.enqueue(JobSpec(command="true", retry=retry, max_attempts=2, expires=expires))
            driver.pass_ms(rng.randrange(18_000))
            while not driver.state(job_id).terminal:
                if rng.random() < 0.2:
                    driver.cancel(job_id)
                for lease in driver.lease():
                    if rng.random() < 0.2:
                        driver.cancel(job_id)
                    results = [Result(exit_code=0), Result(exit_code=3, reason=Reason.EXIT_CODE)]
                    results += [Result(reason=Reason.TIMEOUT), Result(reason=Reason.CANCELLED)]
                    result = rng.choice([*results, None, None])
                    count = publish(driver, lease, SIGNER, rng, result)
                    if result is not None and rng.random() < 0.7:
                        driver.outcome(completion(lease, count, result=result))
                    elif rng.random() < 0.7:  # an agent may be lost behind its last signature too
                        driver.outcome(ReleaseJob(lease=lease.ref, lost=rng.random() < 0.5))
                driver.pass_ms(rng.randrange(20_000))
            check = checked(driver, job_id)
            assert check.faults == [], driver.log(job_id)
            assert check.finished is not None
            ends.add((check.finished.state, check.finished.reason, check.attempts == []))
    assert len(ends) == 7  # completed, exit-code, timeout, agent-lost, expired, cancelled before or in an attempt
