"""Inspection of a DynamoDB store by a process that is none of its brokers: its settings, and all jobs with their logs.

Brokers may write meanwhile: a job is read as it is at one instant, and its log up to what the job had then.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from itertools import islice
from typing import Any, Final

from airunner.broker.store.awserrors import aws_errors, aws_words, open_client
from airunner.broker.store.awsurl import AwsUrl
from airunner.broker.store.contract import StoreAway
from airunner.broker.store.dynamodb.adopting import tenants_of
from airunner.broker.store.dynamodb.opening import check_table, require_version
from airunner.broker.store.dynamodb.pages import PageReader
from airunner.broker.store.dynamodb.schema import LISTED, SHARDS, STORE, TTL, job_of_pk, listed_partition
from airunner.broker.store.dynamodb.table import CALLS_MAX, Edges, Table
from airunner.broker.store.rows import JobRow, Keys
from airunner.protocol.errors import EXIT_UNAVAILABLE, CorruptLog, OperatorError

CHUNK: Final = 50  # jobs that are read at once


def inspect(url: AwsUrl) -> list[str]:
    """Check the table without changing anything; return warnings of its settings. Raises `OperatorError`."""
    with _table(url) as (table, client):
        described = check_table(table)
        item = table.get([STORE]).get(STORE)
        warnings = [] if item else ["there is no store yet: the first broker makes it"]
        if item:
            require_version(table, item)
        if not described.get("DeletionProtectionEnabled"):
            warnings.append("the table has no deletion protection: turn it on, and a mistake does not delete the store")
        warnings += _missing(client.describe_time_to_live, url.table, _removes, "expiry of the attribute ttl")
        warnings += _missing(client.describe_continuous_backups, url.table, _recovers, "point-in-time recovery")
        return warnings


def _removes(answer: dict[str, Any]) -> bool:
    expiry = answer["TimeToLiveDescription"]
    return expiry["TimeToLiveStatus"] in ("ENABLED", "ENABLING") and expiry.get("AttributeName") == TTL


def _recovers(answer: dict[str, Any]) -> bool:
    backups = answer["ContinuousBackupsDescription"]
    return bool(backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus") == "ENABLED")


def _missing(
    ask: Callable[..., dict[str, Any]], table: str, is_on: Callable[[dict[str, Any]], bool], name: str
) -> Iterator[str]:
    """Warn of a setting of the table that is off, or cannot be read."""
    try:
        if not is_on(ask(TableName=table)):
            yield f"the table has no {name}: turn it on, as deploy/aws/airunner.yaml does"
    except aws_errors() as error:
        yield f"whether the table has {name} cannot be read: {aws_words(error)}"


class LogReader(PageReader):
    """Reader of all jobs of a store by number, and of their logs; jobs of the last moment may be left out."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self._number = -1
        self._rows: Iterator[JobRow] = iter(())

    def jobs_after(self, number: int, limit: int) -> list[JobRow]:
        """Load the first jobs with higher numbers, with their specs. Raises `CorruptLog`."""
        if number != self._number:
            self._rows = self._rows_after(number)
        found = list(islice(self._rows, limit))
        if found:
            self._number = found[-1].number
        return found

    def size_bytes(self) -> int:
        """Sum the bytes of all tenants' jobs and logs."""
        return sum(tallies.size_bytes for tallies in self._all_tallies())

    def read_again(self, row: JobRow) -> JobRow | None:
        """Read a job once more; None: it was removed. Raises `CorruptLog`."""
        return next(self._load([(row.tenant, row.job_id)]), None)

    def _rows_after(self, number: int) -> Iterator[JobRow]:
        shards = [(tenant, shard) for tenant in tenants_of(self.table) for shard in range(SHARDS)]
        entries = merge(*(self._entries(tenant, shard, number) for tenant, shard in shards))
        while chunk := [job_of_pk(pk) for _, pk in islice(entries, CHUNK)]:
            self._seen.clear()  # the logs of the chunk before have been read
            yield from self._load(chunk)

    def _entries(self, tenant: str, shard: int, number: int) -> Iterator[tuple[int, str]]:
        """List the numbers and partition keys of a tenant's jobs in one partition of the index."""
        values = {":l": {"S": listed_partition(tenant, shard)}, ":n": {"N": str(number)}}
        for item in self.table.query("l = :l AND n > :n", values, index=LISTED):
            yield int(item["n"]["N"]), item["pk"]["S"]

    def _load(self, keys: Sequence[tuple[str, str]]) -> Iterator[JobRow]:
        """Read jobs with their specs, by number."""
        wanted = Keys(now_ms=0, jobs=set(keys), specs=set(keys))
        rows = {(row.tenant, str(row.job_id)): row for row in self._named(wanted)}
        for key in keys:
            if (row := rows.get(key)) is not None:
                yield row
            elif key[1] in self.table.aside:
                raise CorruptLog


@contextmanager
def open_logs(url: AwsUrl) -> Generator[LogReader]:
    """Open a store to read all of its logs. Raises `OperatorError`."""
    with _table(url) as (table, _):
        check_table(table)
        if (item := table.get([STORE]).get(STORE)) is None:
            raise OperatorError(f"{table.shown}: no broker has used the table yet")
        require_version(table, item)
        yield LogReader(table)


@contextmanager
def _table(url: AwsUrl) -> Generator[tuple[Table, Any]]:
    """Open a table, and a client of DynamoDB. Raises `OperatorError` for all errors."""
    client = open_client(url, "dynamodb", connections=CALLS_MAX)
    edges = Edges()
    try:
        yield Table(client, url.table, edges), client
    except StoreAway as error:
        raise OperatorError(f"cannot use {error}", exit_code=EXIT_UNAVAILABLE) from error
    finally:
        edges.close()
