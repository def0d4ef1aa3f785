"""Replays: pages of a job's log, bounded in bytes, in segments and in how much of the log is searched."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

from msgspec.structs import replace

from airunner.broker.store.contract import Engine
from airunner.broker.store.rows import STDIN_SEQUENCE, JobRow, Segment
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.compression import content_bytes, decompressed
from airunner.protocol.errors import BadRequest, CorruptLog
from airunner.protocol.events import EventSegment, decode_bodies, may_hold, without_first
from airunner.protocol.job import JobState
from airunner.protocol.replies import JobEventsReplayed
from airunner.protocol.requests import CONTENT_BYTES_MAX, REPLAY_BYTES_MAX, REPLAY_SEGMENTS_MAX, ReplayJobEvents

LOOKED_BYTES_MAX: Final = 2 * REPLAY_BYTES_MAX  # bytes decompressed and searched for a page, times kinds: 2 ms a MiB
KINDS_LOOKED_MAX: Final = 8  # kinds to filter by; a request for more kinds wants most of the log, and gets all of it
SEGMENTS_LOOKED_MAX: Final = 8_192  # segments searched for the first event from an instant on, in a few ms


def stdin_in(log: Iterator[Segment]) -> bytes:
    """Take the standard input from a log that is read from `STDIN_SEQUENCE` on. Raises `CorruptLog`: it is missing."""
    first = next(log, None)
    if first is None or first.first_sequence != STDIN_SEQUENCE:
        raise CorruptLog
    return first.events


def replay(engine: Engine, job: JobRow, request: ReplayJobEvents) -> JobEventsReplayed:
    """Replay a page of a job's log. Raises `CorruptLog`: the log is damaged."""
    with _decoding():
        start, beyond = _start(engine, job, request)
        runs = _page(engine.segments(job.number, start), start, request) if start is not None else []
    if start is not None and start <= job.last_sequence and not runs:
        raise CorruptLog(f"event {start} of this job's log is missing. {CorruptLog().message}")
    return JobEventsReplayed(
        runs=tuple(runs),
        next_sequence=runs[-1].next_sequence if runs else beyond,
        last_sequence=job.last_sequence,
        finished=JobState(job.state).terminal,
    )


def _start(engine: Engine, job: JobRow, request: ReplayJobEvents) -> tuple[int | None, int]:
    """Find the page's first sequence (None: no event found is new enough), and the sequence to go on at."""
    instant_ms = request.from_timestamp_ms
    if instant_ms is None:
        return request.from_sequence, request.from_sequence
    for looked, segment in enumerate(engine.segments(job.number, request.from_sequence, instant_ms)):
        if looked == SEGMENTS_LOOKED_MAX:
            return None, max(request.from_sequence, segment.first_sequence)
        # All events of this segment that are new enough may be before `from_sequence`: then the search goes on.
        if segment.last_timestamp_ms >= instant_ms:
            for sequence, body in enumerate(decode_bodies(segment.events), start=segment.first_sequence):
                if sequence >= request.from_sequence and body.timestamp_ms >= instant_ms:
                    return sequence, sequence
    return None, max(request.from_sequence, job.last_sequence + 1)


def _page(segments: Iterator[Segment], start: int, request: ReplayJobEvents) -> list[EventSegment]:
    """Collect the segments of a page, which ends before a damaged one: so a reader gets all that can be read."""
    runs: list[EventSegment] = []
    try:
        _collect(runs, segments, start, request)
    except (CorruptLog, BadRequest, *UNDECODABLE):
        if not runs:
            raise
    return runs


def _collect(runs: list[EventSegment], segments: Iterator[Segment], start: int, request: ReplayJobEvents) -> None:
    """Collect the segments of a page in `runs`; those without events of the requested kinds come without their bytes.

    A segment is decompressed only to search it, or for a reader who does not do so.
    """
    kinds = request.kinds if len(request.kinds) <= KINDS_LOOKED_MAX else ()
    looked_bytes_max = LOOKED_BYTES_MAX // max(2, len(kinds))
    size_bytes = content = looked_bytes = 0
    for looked, segment in enumerate(segments):
        known = max(0, start - segment.first_sequence)
        if known >= segment.count:
            continue
        expected = runs[-1].next_sequence if runs else start
        first_sequence = segment.first_sequence + known
        if first_sequence != expected:
            raise CorruptLog(f"event {expected} of this job's log is missing. {CorruptLog().message}")
        raw = without_first(segment.events, known) if known else segment.events
        if kinds:
            looked_bytes += content_bytes(raw)
            if not may_hold(decompressed(raw), kinds):
                raw = b""
        if not request.zstd:
            raw = decompressed(raw)
        size_bytes += len(raw)
        content += content_bytes(raw)
        beyond = size_bytes > request.bytes_max or content > CONTENT_BYTES_MAX or looked_bytes > looked_bytes_max
        if runs and (beyond or looked > REPLAY_SEGMENTS_MAX or len(runs) == REPLAY_SEGMENTS_MAX):
            break
        count = segment.count - known
        if runs and not (raw or runs[-1].events) and runs[-1].attempt == segment.attempt:
            runs[-1] = replace(runs[-1], count=runs[-1].count + count)
            continue
        runs.append(EventSegment(first_sequence=first_sequence, count=count, attempt=segment.attempt, events=raw))


@contextmanager
def _decoding() -> Generator[None]:
    """Translate errors of decoding stored events in this block. Raises `CorruptLog`."""
    try:
        yield
    except (BadRequest, *UNDECODABLE) as error:
        raise CorruptLog(f"a segment of this job's log cannot be decoded. {CorruptLog().message}") from error
