"""Spool file: one attempt's events on disk, written before they are sent, dropped once the broker has stored them.

```
 append ──► [header][record][record][record]···   ◄── read_from: reads the file, and the one record in memory
                    └ acknowledged ┘└ to be sent ┘    that the disk has refused
```

Invariants
- A record is in the file before its bytes are sent. No fsync: a power cut ends the job too, and the page
  cache survives an agent that is killed.
- Exception: a record that the disk refuses is sent from memory, and no other is appended until it is acknowledged
  (`full`). So a full disk makes the recorder wait; such a record is lost if the agent is killed meanwhile.
- A record contains the batch exactly as it is sent; nothing encodes it again.
- Memory holds positions, and no events but those of a refused record, so a broker that is away for hours costs only
  disk space.
- The space of acknowledged records is freed in steps of at least 64 KiB: the file is truncated if all of it is
  acknowledged; otherwise a hole is punched. Neither needs free disk space.
- Bytes after the last whole record are a partial record: `recover` truncates the file there.
- The header contains the task token, so the file has mode 0600 from its first byte.
- The agent's home is locked by one process, and only that process writes here.

The file is a sequence of MessagePack maps. Calls are synchronous: they reach the page cache, not the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

import msgpack
import msgspec
from msgspec import Struct

from airunner.agent.launcher.refusal import MachineRefused, scarce_at_home
from airunner.agent.output.holes import after_zeros, punch
from airunner.protocol.compression import BATCH_BYTES_MAX
from airunner.protocol.message import LeaseRef
from airunner.protocol.names import Natural
from airunner.protocol.requests import EventBatch

SPOOL_FOLDER: Final = "spool"  # name of the folder in an agent's home
RECLAIM_BYTES_MIN: Final = 65_536  # acknowledged bytes to free in one step: fewer are not worth a system call
_FORMAT: Final = 2  # version of the file format
_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")
_READ_BYTES: Final = 65_536  # bytes read at a time
_BUFFER_BYTES: Final = 2 * BATCH_BYTES_MAX  # for a whole record and the beginning of the next
_encoder = msgspec.msgpack.Encoder()
_UNREADABLE: Final = (ValueError, msgpack.UnpackException)  # raised by msgpack for bytes that are not MessagePack


class SpoolFailed(MachineRefused):
    """Failure to write or read a spool; the message says why. Records written before are unchanged."""

    def __init__(self, message: str, error: OSError | None = None) -> None:
        super().__init__(scarce_at_home(error.errno if error else None), message)


class NotASpool(SpoolFailed):
    """Missing spool header: the agent died while it created the file, or the file is not a spool."""


class ForeignSpool(SpoolFailed):
    """Unknown spool format, of another version of airunner; the file is left as it is."""


class SpoolHeader(Struct, frozen=True, kw_only=True):
    """Header of a spool: the lease of the attempt, whose task token the events are delivered with."""

    lease: LeaseRef
    format: int = _FORMAT

    def batch(self, record: Record) -> EventBatch:
        """Convert a record of this spool to the batch that is sent."""
        return EventBatch(lease=self.lease, first_index=record.first_index, count=record.count, events=record.events)


class Record(Struct, frozen=True, kw_only=True):
    """Record of `count` events from index `first_index` on; `events` is their batch, as it is sent.

    After all records were acknowledged and dropped, the only record has no events, and says which index is next.
    """

    first_index: Natural
    count: Natural
    events: bytes

    @property
    def next_index(self) -> int:
        """The index after this record's last event."""
        return self.first_index + self.count


class _Position(Struct, frozen=True):
    """Position in the file, of a record or of its end: its `offset`, and the `index` of the event that begins there."""

    index: int
    offset: int


class Spool:
    """Spool of one attempt, made by `create` or `recover`: the only writer and reader of its file."""

    def __init__(self, path: Path, descriptor: int, header: SpoolHeader, begin: int, end: _Position) -> None:
        self.path = path
        self.header = header
        self._descriptor = descriptor
        self._begin = begin
        self._kept = _Position(0, begin)  # position of the first record that is not wholly acknowledged
        self._read_to = self._kept  # where the last `read_from` ended
        self._end = end
        self._reclaimed = begin  # offset up to which a hole was punched, if this disk has holes
        self._aside: Record | None = None  # the newest record, if the disk refused it
        self._writable = True  # False: the file may end in a partial record, so new records go to `_aside`

    @classmethod
    def create(cls, path: Path, header: SpoolHeader) -> Spool:
        """Create the file `path`. Raises `SpoolFailed`, also when the file exists."""
        with _failing("cannot create the spool", path):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                descriptor = os.open(path, flags, _FILE_MODE)
            except FileNotFoundError:  # a job, or a cleaner of temporary folders, has removed the empty folder
                path.parent.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
                descriptor = os.open(path, flags, _FILE_MODE)
            packed = _encoder.encode(header)
            try:
                _write_all(descriptor, packed)
            except OSError:
                os.close(descriptor)
                path.unlink()
                raise
        return cls(path, descriptor, header, len(packed), _Position(0, len(packed)))

    @classmethod
    def recover(cls, path: Path) -> Spool:
        """Open the spool `path` that an earlier agent left, and remove a partial record from its end.

        Raises `NotASpool`: the file has nothing to deliver, remove it; `ForeignSpool`: leave the file; `SpoolFailed`.
        """
        with _failing("cannot open the spool", path):
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                header, begin = _read_header(descriptor, path)
                start = after_zeros(descriptor, begin)
                first: int | None = None
                end = _Position(0, start)
                for record, offset in _records(descriptor, end, None):
                    first = record.first_index if first is None else first
                    end = _Position(record.next_index, offset)
                os.ftruncate(descriptor, end.offset)
            except BaseException:
                os.close(descriptor)
                raise
        spool = cls(path, descriptor, header, begin, end)
        spool._kept = spool._read_to = _Position(first or 0, start)
        spool._reclaimed = start
        return spool

    @property
    def next_index(self) -> int:
        """The index of the next event to be appended, and so the number of the attempt's events."""
        return self._end.index

    @property
    def kept_index(self) -> int:
        """The index of the first event that is still kept; all events before it are acknowledged."""
        return self._kept.index

    @property
    def pending(self) -> bool:
        """Whether there are events that are not acknowledged."""
        return self._kept.index < self._end.index

    @property
    def full(self) -> bool:
        """Whether the disk has refused the newest record: no other may be appended until it is acknowledged."""
        return self._aside is not None

    @property
    def pending_bytes(self) -> int:
        """The bytes on disk that are not acknowledged."""
        return self._end.offset - self._kept.offset

    def append(self, first_index: int, count: int, events: bytes) -> Record:
        """Append a batch. A batch that the disk refuses stays in memory, and the spool is then `full`."""
        assert not self.full, "a batch was appended to a full spool"
        assert first_index == self._end.index, "the batch does not follow the last one"
        assert count >= 1
        assert len(events) <= BATCH_BYTES_MAX
        record = Record(first_index=first_index, count=count, events=events)
        try:
            size = self._write(_encoder.encode(record)) if self._writable else 0
        except SpoolFailed:
            size = 0
        if not size:
            self._aside = record
        self._end = _Position(record.next_index, self._end.offset + size)
        return record

    def read_from(self, index: int, bytes_max: int) -> list[Record]:
        """Read whole records from event `index` on: up to `bytes_max` of events, or one larger record.

        A call that begins where the last call ended reads no earlier record again. Raises `SpoolFailed`.
        """
        assert self._kept.index <= index <= self._end.index, f"event {index} is acknowledged, or does not exist"
        found: list[Record] = []
        total = 0
        position = self._read_to if index == self._read_to.index else self._kept
        with _failing("cannot read the spool", self.path):
            for record, offset in _records(self._descriptor, position, self._end.offset):
                if record.next_index > index:
                    total += len(record.events)
                    if found and total > bytes_max:
                        break
                    found.append(record)
                self._read_to = position = _Position(record.next_index, offset)
        last = self._aside
        if last is not None and last.next_index > index and (not found or total + len(last.events) <= bytes_max):
            found.append(last)
        assert found or index == self._end.index, "the spool lost a record"
        return found

    def acknowledge(self, next_index: int) -> None:
        """Drop records whose events are all before `next_index`: the broker has stored them. May be called again.

        After a power cut the file may lack records that the broker has: the next event then gets the broker's index.
        Raises `SpoolFailed`.
        """
        with _failing("cannot read the spool", self.path):
            if next_index >= self._end.index:
                gap = next_index > self._end.index or self.full  # the next record would not follow the file's last
                self._aside = None
                self._kept = self._end = _Position(next_index, self._end.offset)
                if gap or self._end.offset - self._begin >= RECLAIM_BYTES_MIN:
                    self._reclaim()
            elif next_index > self._kept.index:
                for record, offset in _records(self._descriptor, self._kept, self._end.offset):
                    if record.next_index > next_index:
                        break
                    self._kept = _Position(record.next_index, offset)
                if self._kept.offset - self._reclaimed >= RECLAIM_BYTES_MIN:
                    begin = max(self._begin, self._reclaimed - _PAGE_BYTES)  # the last hole had left that page
                    with suppress(OSError):  # no holes on this disk: space is freed when all is acknowledged
                        punch(self._descriptor, begin, self._kept.offset)
                    self._reclaimed = self._kept.offset
        if self._read_to.index < self._kept.index:
            self._read_to = self._kept

    def truncate(self, index: int) -> None:
        """Drop every record from event `index` on; a record must begin with that event. Raises `SpoolFailed`."""
        assert self._kept.index <= index <= self._end.index, f"event {index} is acknowledged, or does not exist"
        if index == self._end.index:
            return
        self._aside = None  # the newest record
        with _failing("cannot truncate the spool", self.path):
            position = self._kept
            for record, offset in _records(self._descriptor, self._kept, self._end.offset):
                if record.next_index > index:
                    break
                position = _Position(record.next_index, offset)
            assert position.index == index, f"no record begins with event {index}"
            os.ftruncate(self._descriptor, position.offset)
        self._end = position
        if self._read_to.index > index:
            self._read_to = self._kept

    def close(self) -> None:
        """Close the file, and leave it for a later `recover`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Delete the file. Call this when no event has to be delivered any more."""
        self.close()
        with _failing("cannot remove the spool", self.path):
            self.path.unlink(missing_ok=True)

    def _reclaim(self) -> None:
        """Truncate the file to its header: all records are acknowledged. Append an empty record with the next index.

        The empty record needs no free disk space: it is in the page of the header.
        """
        index = self._end.index
        empty = _encoder.encode(Record(first_index=index, count=0, events=b""))
        try:
            os.ftruncate(self._descriptor, self._begin)
            self._kept = self._read_to = self._end = _Position(index, self._begin)
            self._reclaimed = self._begin
            size = self._write(empty)
        except (OSError, SpoolFailed):  # later records are sent from memory, until a truncation succeeds
            self._writable = False
        else:
            self._writable = True
            self._kept = self._read_to = self._end = _Position(index, self._begin + size)

    def _write(self, packed: bytes) -> int:
        with _failing("cannot write the spool", self.path):
            try:
                _write_all(self._descriptor, packed)
            except OSError:
                self._writable = False
                os.ftruncate(self._descriptor, self._end.offset)  # remove the partial record
                self._writable = True
                raise
        return len(packed)


def spools_in(folder: Path) -> list[Path]:
    """List the spool files in `folder`, sorted by name."""
    return sorted(folder.iterdir())


def _write_all(descriptor: int, packed: bytes) -> None:
    rest = memoryview(packed)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _read_header(descriptor: int, path: Path) -> tuple[SpoolHeader, int]:
    for value, offset in _values(descriptor, 0, None):
        if isinstance(value, dict) and (found := cast("dict[str, object]", value).get("format", _FORMAT)) != _FORMAT:
            raise ForeignSpool(
                f"{path} was written by another version of airunner (format {found}): "
                "run an agent of that version in this home to deliver it, or remove it"
            )
        try:
            header = msgspec.convert(value, SpoolHeader)
        except msgspec.ValidationError as error:
            raise NotASpool(f"{path} is not a spool: {error}") from error
        return header, offset
    raise NotASpool(f"{path} has no whole header")


def _records(descriptor: int, position: _Position, end: int | None) -> Iterator[tuple[Record, int]]:
    """Read records from `position` on, each with the offset after it, up to bytes that are not the next record."""
    index: int | None = position.index if end is not None else None
    for value, offset in _values(descriptor, position.offset, end):
        try:
            record = msgspec.convert(value, Record)
        except msgspec.ValidationError:
            return
        if index is not None and record.first_index != index:
            return
        yield record, offset
        index = record.next_index


def _values(descriptor: int, offset: int, end: int | None) -> Iterator[tuple[object, int]]:
    """Read MessagePack values from `offset` up to `end` or the file's end, with the offset after each."""
    unpacker = msgpack.Unpacker(max_buffer_size=_BUFFER_BYTES)
    reached = offset
    try:
        while chunk := os.pread(descriptor, _READ_BYTES if end is None else min(_READ_BYTES, end - reached), reached):
            reached += len(chunk)
            unpacker.feed(chunk)
            for value in unpacker:
                yield value, offset + unpacker.tell()
    except _UNREADABLE:
        return


class _failing:  # noqa: N801 - a context manager
    """Translate an `OSError` to `SpoolFailed`; `doing` and `path` say what failed."""

    def __init__(self, doing: str, path: Path) -> None:
        self._doing = doing
        self._path = path

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError):
            raise SpoolFailed(f"{self._doing} {self._path}: {error.strerror}", error) from error
