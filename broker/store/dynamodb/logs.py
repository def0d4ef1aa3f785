"""Logs of a DynamoDB store: segments inside of jobs' items and beside them, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from typing import Final

from airunner.broker.store.dynamodb.batches import Batch
from airunner.broker.store.dynamodb.items import JobItem, read_segments
from airunner.broker.store.dynamodb.schema import LOG, segment_sk, sequence_of_sk
from airunner.broker.store.dynamodb.table import Table
from airunner.broker.store.rows import STDIN_SEQUENCE, Segment

SEEN_MAX: Final = 4_096  # jobs whose logs may be asked for by their numbers


class LogReader:
    """Reader of logs, of jobs that were read before; see `contract.Engine`."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._batch = Batch()
        self._reading = False
        self._seen: dict[int, JobItem] = {}  # by number: jobs whose logs may be read

    def _see(self, job: JobItem) -> JobItem:
        if len(self._seen) >= SEEN_MAX:
            self._seen.clear()
        self._seen[job.row.number] = job
        return job

    def segments(self, number: int, sequence: int, from_timestamp_ms: int | None = None) -> Iterator[Segment]:
        del from_timestamp_ms
        job = self._batch.jobs.get(number) or self._seen.get(number)
        if job is None:
            return
        if not self._reading:
            assert sequence == STDIN_SEQUENCE, "a batch reads only standard inputs"
        pk = job.key[0]
        first = self._first_of(pk, job, sequence)
        inside = sorted((part for part in job.segments if part.first_sequence >= first), key=_place_of)
        values = {":pk": {"S": pk}, ":from": {"S": segment_sk(first)}, ":to": {"S": f"{LOG}~"}}
        apart = read_segments(number, self.table.query("pk = :pk AND sk BETWEEN :from AND :to", values))
        last = job.row.last_sequence  # what came after the job was read may not be all there
        for segment in merge(inside, apart, key=_place_of):
            if segment.first_sequence > last:
                return
            yield segment

    def _first_of(self, pk: str, job: JobItem, sequence: int) -> int:
        """Find the first sequence of the segment that has an event."""
        if sequence <= 1:
            return sequence
        values = {":pk": {"S": pk}, ":from": {"S": LOG}, ":to": {"S": f"{segment_sk(sequence)}~"}}
        query = self.table.query(
            "pk = :pk AND sk BETWEEN :from AND :to", values, descending=True, limit=1, projection="sk"
        )
        found = [sequence_of_sk(item["sk"]["S"]) for item in query]
        found += [part.first_sequence for part in job.segments if part.first_sequence <= sequence]
        return max(found, default=sequence)


def _place_of(segment: Segment) -> int:
    return segment.first_sequence
