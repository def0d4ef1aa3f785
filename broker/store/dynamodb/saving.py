"""Saving of a batch's changes: the writes of one transaction, each under the condition of what was loaded.

| written | condition |
|---|---|
| job, tally bucket, grant | its revision is as it was loaded, or there is none |
| new job, segment | there is none |
| idempotency record | there is none, or the old one that counts no more |
| mode of a queue; first bucket of a broker | the tenant's revision is as it was before the modes were read |
| secret | the revision of the queue's secrets |
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from airunner.broker.store.contract import Moved
from airunner.broker.store.dynamodb.batches import Batch, Dropped
from airunner.broker.store.dynamodb.items import (
    KB,
    Item,
    JobItem,
    keep_inside,
    size_of,
    write_job,
    write_record,
    write_secret,
    write_segment,
    write_spec,
)
from airunner.broker.store.dynamodb.notes import Gone, Note, write_note
from airunner.broker.store.dynamodb.outbox import INSIDE_MAX, Parcel, parcel_of, write_parcel
from airunner.broker.store.dynamodb.schema import (
    GONE,
    MODE,
    TENANTS,
    TTL,
    Key,
    bucket_of,
    gone_sk,
    grant_key,
    needs_key,
    secret_key,
    tallies_pk,
    words_key,
)
from airunner.broker.store.dynamodb.table import ROWS_MAX, Table, new_token
from airunner.broker.store.dynamodb.tallies import Announcement, Bucket, TenantTallies
from airunner.broker.store.rows import Changes, JobRow, Segment, Usage
from airunner.protocol.errors import NoSpace
from airunner.protocol.names import RequestId
from airunner.protocol.replies import QueueMode

Action = dict[str, Any]

NEW: Final = "attribute_not_exists(pk)"
SAME: Final = "rev = :rev"
SAME_ANSWER: Final = "answered_ms = :old"
RECORD_TTL_S: Final = 30 * 86_400  # seconds for which an idempotency record is kept
GRANT_TTL_S: Final = 2 * 86_400  # seconds for which a grant is kept: a request is repeated for minutes
WORDS_TTL_S: Final = 30 * 86_400  # seconds for which the text of needs is kept since it was last needed
BUCKET_BYTES_MAX: Final = 360_000  # of a tally bucket that gets further queues; an item may have 400 KB
WORDS_MAX: Final = 16_384  # needs whose texts are known to be stored


def read_tallies(table: Table, tenant: str) -> TenantTallies:
    """Read a tenant's tallies and modes."""
    return TenantTallies(tenant, table.query("pk = :pk", {":pk": {"S": tallies_pk(tenant)}}))


def read_tenant_rev(table: Table, tenant: str) -> int:
    """Read a tenant's revision; 0: the tenant is new."""
    key = (TENANTS, tenant)
    item = table.get([key]).get(key)
    return int(item["rev"]["N"]) if item else 0


class Saving:
    """Transaction that saves the changes of a batch; `buckets` are this broker's, as they will be."""

    def __init__(self, table: Table, batch: Batch, broker: str, wall_s: int) -> None:
        self.actions: list[Action] = []
        self.buckets: dict[tuple[str, int], Bucket] = {}
        self.parcels: list[Parcel] = []
        self.specs: list[Item] = []  # to be stored before: without its job, a spec is nothing
        self._table = table
        self._batch = batch
        self._broker = broker
        self._wall_s = wall_s
        self._raised: set[str] = set()  # tenants whose revision rises
        self._inside: set[tuple[int, int]] = set()  # segments inside of jobs' items

    def save(self, changes: Changes, acknowledged: Iterable[tuple[str, Announcement]]) -> None:
        """Make all writes. Raises `Moved`: the modes of queues are not as they were."""
        self._save_jobs(changes)
        self._save_removed(changes.removed)
        for record in changes.records:
            item = write_record(record, self._wall_s + RECORD_TTL_S)
            if (old := self._batch.old_records.get((record.tenant, record.request_id))) is None:
                self.actions.append(self._table.put_action(item, NEW))
            else:
                self.actions.append(self._table.put_action(item, SAME_ANSWER, {":old": {"N": str(old)}}))
        self._save_grants(changes)
        self._save_secrets(changes)
        self._count(changes)
        self._save_modes(changes)
        self.put_buckets(acknowledged)

    def put_buckets(self, acknowledged: Iterable[tuple[str, Announcement]]) -> None:
        """Write this broker's buckets, without what was announced. Raises `NoSpace`: one has too many queues."""
        done = set(acknowledged)
        for (tenant, _), bucket in self.buckets.items():
            content = bucket.content
            content.outbox = [entry for entry in content.outbox if (tenant, entry) not in done]
            if len(content.outbox) > INSIDE_MAX and len(self.actions) + len(self.buckets) < ROWS_MAX:
                parcel = parcel_of(tenant, content.outbox, self._wall_s, new_token(self._table.edges))
                self.parcels.append(parcel)
                content.outbox = []
                self.actions.append(self._table.put_action(write_parcel(self._broker, parcel), NEW))
            item = bucket.item()
            if bucket.names > bucket.stored_names and size_of(item) > BUCKET_BYTES_MAX:
                raise NoSpace
            self.actions.append(self._put(item, bucket.rev))

    def delete(self, key: Key, rev: int) -> None:
        """Delete an item that is as it was read."""
        self.actions.append(self._table.delete_action(key, SAME, {":rev": {"N": str(rev)}}))

    def drop_records(self, dropped: Dropped) -> None:
        """Take back what old idempotency records count, wherever that is."""
        for (tenant, number, broker), records in dropped.items():
            if broker == self._broker:
                bucket = self.bucket(tenant, number)
            else:
                found = self._batch.tenants[tenant].bucket(number, broker)
                if found is None:
                    raise Moved
                bucket = found.copy()
            for hour, count in records.items():
                bucket.drop_records(hour, count)
            if broker != self._broker:
                self.actions.append(self._put(bucket.item(), bucket.rev))

    # --- jobs ---

    def _save_jobs(self, changes: Changes) -> None:
        logs: dict[int, list[Segment]] = {}
        for segment in changes.segments:
            logs.setdefault(segment.number, []).append(segment)
        facts: dict[int, list[bytes]] = {}
        for _, fact, number in changes.facts:
            facts.setdefault(number, []).append(fact)
        for row in changes.added:
            job = JobItem(row=row, facts=tuple(facts.get(row.number, ())))
            if size_of(write_job(job)) > KB:
                job.spec_inside = False
                self.specs.append(write_spec(job))
            self._save_job(job, logs.get(row.number, ()))
        for old, row in changes.changed:
            loaded = self._batch.jobs[old.number]
            job = JobItem(
                row=row,
                rev=loaded.rev,
                spec_inside=loaded.spec_inside,
                log_bytes=loaded.log_bytes,
                facts=loaded.facts,
                segments=loaded.segments,
                due_key=loaded.due_key,
            )
            self._save_job(job, logs.get(row.number, ()))

    def _save_job(self, job: JobItem, segments: Iterable[Segment]) -> None:
        for segment in segments:
            job.log_bytes += len(segment.events)
            if not keep_inside(job, segment):
                for item in write_segment(job.key[0], segment):
                    self.actions.append(self._table.put_action(item, NEW))
        self.actions.append(self._put(write_job(job), job.rev))

    def _save_removed(self, removed: Iterable[JobRow]) -> None:
        """Delete jobs, and note that their logs are to be deleted."""
        gone: list[Gone] = []
        for row in removed:
            job = self._batch.jobs[row.number]
            self.delete(job.key, job.rev)
            gone.append(Gone(row.tenant, row.job_id, job.log_bytes))
        if gone:
            sk = gone_sk(gone[0].tenant, gone[0].job_id)
            self.actions.append(self._put(write_note(Note((GONE, sk), 0, gone)), 0))

    def _put(self, item: dict[str, Any], rev: int) -> Action:
        if rev == 0:
            return self._table.put_action(item, NEW)
        return self._table.put_action(item, SAME, {":rev": {"N": str(rev)}})

    # --- requests ---

    def _save_grants(self, changes: Changes) -> None:
        granted: dict[tuple[str, RequestId], list[str]] = {}
        leased = [row for row in changes.added if row.attempt]  # in the batch in which it was submitted
        leased += [row for old, row in changes.changed if row.attempt != old.attempt]
        for row in leased:
            if row.lease_request is not None:
                granted.setdefault((row.tenant, row.lease_request), []).append(row.job_id)
        for (tenant, request_id), job_ids in granted.items():
            pk, sk = grant_key(tenant, request_id)
            before = self._batch.grants.get((tenant, request_id))
            rev = 0 if before is None else int(before["rev"]["N"])  # the same jobs may be granted twice
            item = {
                "pk": {"S": pk},
                "sk": {"S": sk},
                "rev": {"N": str(rev + 1)},
                "jobs": {"B": msgspec.msgpack.encode(job_ids)},
                TTL: {"N": str(self._wall_s + GRANT_TTL_S)},
            }
            self.actions.append(self._put(item, rev))

    def _save_secrets(self, changes: Changes) -> None:
        last = {secret_key(row): {"Put": {"Item": write_secret(row)}} for row in changes.secrets}
        for name in changes.secrets_removed:
            pk, sk = secret_key(name)
            last[pk, sk] = {"Delete": {"Key": {"pk": {"S": pk}, "sk": {"S": sk}}}}
        for action in last.values():
            for asked in action.values():
                self.actions.append({next(iter(action)): {"TableName": self._table.name, **asked}})
        changed = {(row.tenant, row.queue) for row in changes.secrets}
        for tenant, queue in changed.union((tenant, queue) for tenant, queue, _ in changes.secrets_removed):
            self._raise_rev((f"X#{tenant}", f"{queue}#"), self._batch.secret_revs.get((tenant, queue), 0))

    def _raise_rev(self, key: tuple[str, str], rev: int) -> None:
        """Raise a revision that is as it was read."""
        one = {":one": {"N": "1"}}
        if rev == 0:
            self.actions.append(self._table.update_action(key, "SET rev = :one", NEW, one))
        else:
            values = {**one, ":rev": {"N": str(rev)}}
            self.actions.append(self._table.update_action(key, "ADD rev :one", SAME, values))

    # --- tallies ---

    def bucket(self, tenant: str, number: int) -> Bucket:
        """Return this broker's bucket, to be changed; it is made if there is none. Raises `Moved`."""
        if (bucket := self.buckets.get((tenant, number))) is None:
            if tenant not in self._batch.tenants:  # nothing was decided on its modes
                loaded = self._batch.kept.get((tenant, number)) or self._read_bucket(tenant, number)
            else:
                loaded = self._batch.tenants[tenant].bucket(number, self._broker)
            bucket = self._new_bucket(tenant, number) if loaded is None else loaded.copy()
            self.buckets[tenant, number] = bucket
        return bucket

    def _read_bucket(self, tenant: str, number: int) -> Bucket | None:
        tallies = self._batch.tenants[tenant] = read_tallies(self._table, tenant)
        return tallies.bucket(number, self._broker)

    def _new_bucket(self, tenant: str, number: int) -> Bucket:
        """Make a bucket with the modes of its queues; none of them may have been decided on as another one."""
        batch = self._batch
        if tenant not in batch.tenant_revs:
            rev = read_tenant_rev(self._table, tenant)  # before the modes are read
            before, tallies = batch.tenants[tenant], read_tallies(self._table, tenant)
            if before.stored_modes != tallies.stored_modes or tallies.bucket(number, self._broker) is not None:
                raise Moved
            batch.tenant_revs[tenant] = rev
        self._raise_tenant(tenant)
        bucket = Bucket(tenant, number, self._broker)
        modes = batch.tenants[tenant].stored_modes
        bucket.modes = {queue: mode for queue, mode in modes.items() if bucket_of(queue) == number}
        return bucket

    def _raise_tenant(self, tenant: str) -> None:
        if tenant not in self._raised:
            self._raised.add(tenant)
            self._raise_rev((TENANTS, tenant), self._batch.tenant_revs[tenant])

    def _count(self, changes: Changes) -> None:
        for old, row in changes.changed:
            if row.attempt != old.attempt:  # a lease is held to the mode of its queue, though it may change no counter
                self.bucket(row.tenant, bucket_of(row.queue))
        for key, counts in changes.counts.items():
            if any(counts):
                tally = self.bucket(key.tenant, bucket_of(key.queue)).queue(key.queue)
                tally.waiting += counts.waiting
                tally.delayed += counts.delayed
                tally.running += counts.running
        for rows, more in ((changes.added, 1), (changes.removed, -1)):
            for row in rows:
                self.bucket(row.tenant, bucket_of(row.queue)).queue(row.queue).jobs += more
        for key, jobs in changes.kinds.items():
            self.bucket(key.tenant, bucket_of(key.queue)).queue(key.queue).add_kind(needs_key(key.needs), jobs)
        self._announce(changes)
        touched: dict[str, int] = dict(reversed(self.buckets))
        queues = {row.tenant: row.queue for _, row in changes.changed}
        answered: dict[str, list[int]] = {}
        for record in changes.records:
            answered.setdefault(record.tenant, []).append(record.answered_ms)
        for tenant in changes.usage.keys() | answered.keys():
            usage = changes.usage.get(tenant, Usage())
            if not (usage.size_bytes or usage.waiting or tenant in answered):
                continue
            bucket = self.bucket(tenant, touched.get(tenant, bucket_of(queues.get(tenant, ""))))
            bucket.content.size_bytes += usage.size_bytes
            bucket.content.waiting += usage.waiting
            for answered_ms in answered.get(tenant, ()):
                bucket.add_records(1, answered_ms)

    def _announce(self, changes: Changes) -> None:
        """Note lifecycle events in this broker's outbox, by their segments: a segment of a broker has no others."""
        if not changes.lifecycle:
            return
        begun = {(segment.number, segment.first_sequence) for segment in changes.segments}
        rows = {row.number: row for row in (*changes.added, *(row for _, row in changes.changed))}
        for number, sequence in changes.lifecycle:
            if (number, sequence) not in begun:
                continue
            row = rows[number]
            content = self.bucket(row.tenant, bucket_of(row.queue)).content
            content.outbox.append(Announcement(row.job_id, row.queue, sequence))

    def _save_modes(self, changes: Changes) -> None:
        for (tenant, queue, _), mode in changes.modes.items():
            number = bucket_of(queue)
            is_open = mode is QueueMode.OPEN
            key = (tallies_pk(tenant), f"{MODE}{queue}")
            if is_open:
                item = {"pk": {"S": key[0]}, "sk": {"S": key[1]}}
                self.actions.append({"Delete": {"TableName": self._table.name, "Key": item}})
            else:
                item = {"pk": {"S": key[0]}, "sk": {"S": key[1]}, "mode": {"S": str(mode)}}
                self.actions.append({"Put": {"TableName": self._table.name, "Item": item}})
            self._raise_tenant(tenant)
            for bucket in self._batch.tenants[tenant].buckets:
                if bucket.number == number and bucket.broker != self._broker:
                    self.actions.append(self._change_mode(bucket, queue, None if is_open else mode))
            tallies = self._batch.tenants[tenant]
            if (tenant, number) in self.buckets or tallies.bucket(number, self._broker) is not None:
                own = self.bucket(tenant, number)
                own.modes.pop(queue, None)
                if not is_open:
                    own.modes[queue] = str(mode)

    def _change_mode(self, bucket: Bucket, queue: str, mode: QueueMode | None) -> Action:
        """Change a mode in another broker's bucket, without a condition on what that counts meanwhile."""
        values = {":one": {"N": "1"}}
        if mode is None:
            update = "REMOVE m.#q ADD rev :one"
        else:
            update = "SET m.#q = :mode ADD rev :one"
            values[":mode"] = {"S": str(mode)}
        return self._table.update_action(bucket.key, update, "attribute_exists(pk)", values, {"#q": queue})


def granted_jobs(item: Item) -> list[str]:
    """Return the ids of the jobs that a grant names."""
    job_ids: list[str] = msgspec.msgpack.decode(item["jobs"]["B"])
    return job_ids


def keep_words(table: Table, changes: Changes, known: dict[tuple[str, bytes], int], wall_s: int) -> None:
    """Store the texts of needs of new jobs before the jobs; `known`: when each was stored last, in s."""
    for key, jobs in changes.kinds.items():
        needs = needs_key(key.needs)
        if jobs > 0 and known.get((key.tenant, needs), 0) < wall_s - 3_600:
            pk, sk = words_key(key.tenant, needs)
            ttl = {"N": str(wall_s + WORDS_TTL_S)}
            if len(known) >= WORDS_MAX:
                known.clear()
            table.put({"pk": {"S": pk}, "sk": {"S": sk}, "words": {"S": key.needs}, TTL: ttl})
            known[key.tenant, needs] = wall_s
