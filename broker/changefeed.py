"""Change feed: publishes what each commit has changed in lists of jobs, on the change streams that have listeners.

```
Ledger ─ Changes ─► bus ─► ChangeFeed ─ JobChanges, sealed ─► relay ══► clients; relays of other brokers ══► theirs
Gateway ─ watch ────────────┘
```

A tenant has a stream for all of its jobs and one for each queue, which senders that are bound to queues get. The key of
a stream is derived from a secret that the brokers of a fleet share, so that each publishes what it commits under the
same topic; and from a period of time, so that who may not list any more soon reads no more either. Brokers serve the
periods before and after their own too: their clocks need not agree.

While nobody listens to any topic, a commit costs one look. Each message has a number, by which a lost one is noticed;
reminders show that there is none after the last. A batch with more changes than some messages can carry says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, cast

import anyio
import msgspec
from anyio.abc import TaskGroup
from msgspec import Struct

from airunner.broker.counts import Counts
from airunner.broker.lifecycle.showing import change_of, is_shown_alike
from airunner.broker.store.rows import Changes, JobRow
from airunner.broker.watchers import GRANT_MS, Watchers
from airunner.certs.sealed import NONCE_BYTES, change_key, seal, topic_of
from airunner.protocol.changes import REMINDER_S, SENDER_BYTES, JobChange, JobChanges
from airunner.protocol.frames import LIVE_BYTES_MAX
from airunner.protocol.job import JobState
from airunner.protocol.replies import ChangeStream, QueueMode
from airunner.transport.ports import Edges, Publisher

KEY_MS: Final = 3_600_000  # period of a key, which is served for one to two of them
MESSAGES_MAX: Final = 8  # messages of one batch on one stream: some 60 jobs; a client that gets fewer reads the list
STREAMS_MAX: Final = 10_000  # streams whose numbers are remembered, some 3 MB
SECRET_BYTES: Final = 32


class Stream(Struct):
    """Change stream: its key and topic, the number of its last message, and until when it waits for a listener."""

    watch_key: bytes
    topic: bytes
    number: int = 0
    granted_ms: int = 0


class _Row(Struct, frozen=True):
    before: JobRow | None
    after: JobRow


class _News(Struct):
    """News of a batch for one stream."""

    stream: Stream
    rows: list[_Row] = []
    modes: dict[str, QueueMode] = {}


class ChangeFeed:
    """Change feed actor; `secret` makes the keys of the streams, and is drawn if it is empty.

    `parted` returns whether what another broker of the fleet publishes may not come here: then no reminder says that
    nothing is missing.
    """

    def __init__(
        self,
        publisher: Publisher,
        edges: Edges,
        counts: Counts,
        watchers: Watchers,
        secret: bytes = b"",
        parted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._publisher = publisher
        self._edges = edges
        self._counts = counts
        self._watchers = watchers
        self._secret = secret
        self._parted = parted
        self._sender = b""  # drawn with the first message
        self._streams: dict[bytes, Stream] = {}  # by topic: those that have published, or were granted
        self._group: TaskGroup | None = None
        self._reminding = False
        self._encoder = msgspec.msgpack.Encoder()

    def run_in(self, group: TaskGroup) -> None:
        """Send reminders in this group, while there are streams: a broker that nobody watches has no task."""
        self._group = group

    async def _remind(self) -> None:
        """Send reminders until there are no streams."""
        while self._streams:
            await anyio.sleep(REMINDER_S)
            now_ms = self._edges.wall_ms()
            for stream in list(self._streams.values()):
                if self._watchers.has_listener(stream.topic):
                    self._publish(_News(stream), {}, left_out=self._parted())
                elif stream.granted_ms <= now_ms:
                    del self._streams[stream.topic]
        self._reminding = False

    def watch(self, tenant: str, queues: Iterable[str]) -> list[tuple[bytes, ChangeStream]]:
        """Return the topics and the keys of these queues' streams, for a client that is granted them now."""
        now_ms = self._edges.wall_ms()
        granted: list[tuple[bytes, ChangeStream]] = []
        for queue in queues:
            stream = self._stream(tenant, queue, now_ms // KEY_MS)
            stream.granted_ms = now_ms + GRANT_MS
            self._remember(stream)
            granted.append((stream.topic, ChangeStream(queue=queue, watch_key=stream.watch_key)))
        return granted

    def send(self, changes: Changes) -> None:
        """Publish what a batch has changed, to those who listen."""
        if not self._watchers.has_listeners() or not (changes.added or changes.changed or changes.modes):
            return
        rows = [_Row(None, job) for job in changes.added]
        rows += [_Row(before, job) for before, job in changes.changed if not is_shown_alike(before, job)]
        period = self._edges.wall_ms() // KEY_MS
        listened: dict[tuple[str, str], list[Stream]] = {}
        news: dict[bytes, _News] = {}
        for row in rows:
            for stream in self._listened(listened, row.after.tenant, row.after.queue, period):
                news.setdefault(stream.topic, _News(stream)).rows.append(row)
        for key, mode in changes.modes.items():
            for stream in self._listened(listened, key.tenant, key.queue, period):
                news.setdefault(stream.topic, _News(stream)).modes[key.queue] = mode
        encoded: dict[int, msgspec.Raw] = {}
        for some in news.values():
            self._publish(some, encoded)

    def _listened(
        self, known: dict[tuple[str, str], list[Stream]], tenant: str, queue: str, period: int
    ) -> Sequence[Stream]:
        """Find the streams with listeners on which a job of this queue is published."""
        found = known.get((tenant, queue))
        if found is None:
            both = [self._stream(tenant, name, period + at) for name in ("", queue) for at in (0, -1, 1)]
            found = known[tenant, queue] = [s for s in both if self._watchers.has_listener(s.topic)]
            for stream in found:
                self._remember(stream)
        return found

    def _stream(self, tenant: str, queue: str, period: int) -> Stream:
        if not self._secret:
            self._secret = self._edges.random_bytes(SECRET_BYTES)
        watch_key, topic = _derived(self._secret, tenant, queue, period)
        return self._streams.get(topic) or Stream(watch_key, topic)

    def _remember(self, stream: Stream) -> None:
        self._streams[stream.topic] = stream
        if len(self._streams) > STREAMS_MAX:  # its listeners, if there are any, notice that its numbers begin again
            del self._streams[next(iter(self._streams))]
        if self._group is not None and not self._reminding:
            self._reminding = True
            self._group.start_soon(self._remind, name="reminders of change streams")

    def _publish(self, news: _News, encoded: dict[int, msgspec.Raw], *, left_out: bool = False) -> None:
        """Publish news in as many messages as they take, up to `MESSAGES_MAX`; without any, a reminder."""
        stream, modes = news.stream, news.modes
        pieces = list(self._pieces(news.rows, encoded))
        sent = [raws for raws, _ in pieces[:MESSAGES_MAX]] or [[]]
        left = [row for _, some in pieces[MESSAGES_MAX:] for row in some]
        for at, raws in enumerate(sent):
            last = at == len(sent) - 1
            missing = left_out or (last and bool(left))
            stream.number += bool(raws or modes or missing)
            message = JobChanges(
                sender=self._sender_id(),
                number=stream.number,
                jobs=cast("tuple[JobChange, ...]", tuple(raws)),
                modes=modes if last else {},
                left_out=missing,
                submitted=sum(row.before is None for row in left) if last else 0,
                started=sum(map(_started, left)) if last else 0,
                ended=sum(map(_ended, left)) if last else 0,
            )
            nonce = self._edges.random_bytes(NONCE_BYTES)
            self._publisher.publish([stream.topic, seal(stream.watch_key, self._encoder.encode(message), nonce)])
            self._counts.add("announced")

    def _pieces(
        self, rows: Sequence[_Row], encoded: dict[int, msgspec.Raw]
    ) -> Iterator[tuple[list[msgspec.Raw], list[_Row]]]:
        """Divide rows into pieces, each small enough for a message, with their encoded jobs."""
        raws: list[msgspec.Raw] = []
        some: list[_Row] = []
        size_bytes = 0
        for row in rows:
            raw = encoded.get(row.after.number)
            if raw is None:
                raw = encoded[row.after.number] = self._encoded(row)
            if raws and size_bytes + len(bytes(raw)) > LIVE_BYTES_MAX:
                yield raws, some
                raws, some, size_bytes = [], [], 0
            raws.append(raw)
            some.append(row)
            size_bytes += len(bytes(raw))
        if raws:
            yield raws, some

    def _encoded(self, row: _Row) -> msgspec.Raw:
        raw = self._encoder.encode(change_of(row.before, row.after, whole=True))
        if len(raw) > LIVE_BYTES_MAX:
            raw = self._encoder.encode(change_of(row.before, row.after, whole=False))
        return msgspec.Raw(raw)

    def _sender_id(self) -> bytes:
        if not self._sender:
            self._sender = self._edges.random_bytes(SENDER_BYTES)
        return self._sender


def _started(row: _Row) -> bool:
    return row.after.attempt > (0 if row.before is None else row.before.attempt)


def _ended(row: _Row) -> bool:
    return JobState(row.after.state).terminal


@lru_cache(maxsize=4_096)
def _derived(secret: bytes, tenant: str, queue: str, period: int) -> tuple[bytes, bytes]:
    """Derive the key and the topic of a stream in a period."""
    watch_key = change_key(secret, msgspec.msgpack.encode((tenant, queue, period)))
    return watch_key, topic_of(watch_key)
