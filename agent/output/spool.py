"""Spool: one attempt's events on disk, written before they are sent, dropped once the broker has stored them.

```
 append ──► [header][record][record][record]···   ◄── read_from: straight from the file, never from memory
                    └ acknowledged ┘└ to be sent ┘    and one more in memory, where the disk had no room for it
```

Laws
- A record is in the file before its bytes are sent. No fsync: a power cut ends the job too, and the page
  cache outlives an agent that is killed.
- But for the one that the disk refuses. That is sent from memory, and nothing is appended until it is acknowledged
  (`full`): a full disk makes a command wait, and loses a batch only where the agent is killed just then.
- A record holds the batch exactly as it goes on the wire; nothing encodes it again.
- Only the kept position and the position of the next read are in memory, so a broker that is away for hours
  costs nothing but disk.
- What is acknowledged gives its room back at once, in pieces that are worth a call: the file is cut where nothing else
  is left in it, and has a hole otherwise. Neither needs any room.
- Whatever follows the last whole record is a torn tail: `recover` cuts it off, and the next one goes there.
- The header holds the task token, so the file is 0600 from its first byte.
- The agent's home is locked by one process, the only one that writes here.

The file is a sequence of MessagePack maps. Calls are synchronous: they reach the page cache, not the disk.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, cast

import msgpack
import msgspec
from msgspec import Struct

from airunner.agent.launcher.refusal import MachineRefused, scarce_at_home
from airunner.agent.output.holes import after_zeros, punch
from airunner.protocol.events import BATCH_BYTES_MAX
from airunner.protocol.names import Natural
from airunner.protocol.replies import LeaseRef
from airunner.protocol.requests import EventBatch

SPOOL_FOLDER: Final = "spool"  # of an agent's home
RECLAIM_BYTES_MIN: Final = 65_536  # less is not worth a call; most jobs never get there
_FORMAT: Final = 2
_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")
_READ_BYTES: Final = 65_536
_BUFFER_BYTES: Final = 2 * BATCH_BYTES_MAX  # a whole record and the beginning of the next
_encoder = msgspec.msgpack.Encoder()
_UNREADABLE: Final = (ValueError, msgpack.UnpackException)  # all that msgpack raises for bytes that are not MessagePack


class SpoolFailed(MachineRefused):
    """Spool that cannot be written or read; the message says why. What it held before is untouched."""

    def __init__(self, message: str, error: OSError | None = None) -> None:
        super().__init__(scarce_at_home(error.errno if error else None), message)


class NotASpool(SpoolFailed):
    """Spool without a whole header: an agent died before the attempt's first event, or this is another file."""


class ForeignSpool(SpoolFailed):
    """Spool of another version of airunner, in a format that is not known here; it is left as it is."""


class SpoolHeader(Struct, frozen=True, kw_only=True):
    """Header of a spool: the attempt whose events these are, and the token to deliver them with."""

    lease: LeaseRef
    format: int = _FORMAT

    def batch(self, record: Record) -> EventBatch:
        """Return a record of this spool as it is sent."""
        return EventBatch(lease=self.lease, first_index=record.first_index, count=record.count, events=record.events)


class Record(Struct, frozen=True, kw_only=True):
    """Record of `count` events from `first_index` on; `events` is their MessagePack array as it is sent.

    In the file a record without events marks the position at which older ones were cut away.
    """

    first_index: Natural
    count: Natural
    events: bytes

    @property
    def next_index(self) -> int:
        """The index after this record's last event."""
        return self.first_index + self.count


class _Position(Struct, frozen=True):
    """Position in the file of the record that begins with event `index`, also of one to come."""

    index: int
    offset: int


class Spool:
    """Spool of one attempt, made by `create` or `recover`: the only writer and reader of its file."""

    def __init__(self, path: Path, descriptor: int, header: SpoolHeader, begin: int, end: _Position) -> None:
        self.path = path
        self.header = header
        self._descriptor = descriptor
        self._begin = begin
        self._kept = self._read = _Position(0, begin)
        self._end = end
        self._reclaimed = begin  # before here the file is a hole
        self._aside: Record | None = None  # the last record, if the disk had no room for it
        self._writable = True  # else something torn stands at the file's end, and nothing may stand behind it

    @classmethod
    def create(cls, path: Path, header: SpoolHeader) -> Spool:
        """Create a new file. Raises `SpoolFailed`, also when `path` exists."""
        with _failing(f"cannot make the spool {path}"):
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
        """Open the spool that an agent that died left in `path`, without its torn tail.

        Raises `NotASpool`: there is nothing to deliver, remove it; `ForeignSpool`: leave it alone; `SpoolFailed`.
        """
        with _failing(f"cannot open the spool {path}"):
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
        spool._kept = spool._read = _Position(first or 0, start)
        spool._reclaimed = start
        return spool

    @property
    def next_index(self) -> int:
        """The index of the next event to be appended: how many the attempt has had."""
        return self._end.index

    @property
    def kept_index(self) -> int:
        """The first index that may still be read: all before it are acknowledged."""
        return self._kept.index

    @property
    def pending(self) -> bool:
        """Whether events are not acknowledged yet."""
        return self._kept.index < self._end.index

    @property
    def full(self) -> bool:
        """Whether no record may be appended until all is acknowledged: the disk had no room for the last one."""
        return self._aside is not None

    @property
    def pending_bytes(self) -> int:
        """The bytes on disk that are not acknowledged."""
        return self._end.offset - self._kept.offset

    def append(self, first_index: int, count: int, events: bytes) -> Record:
        """Append a batch. Where the disk has no room for it, the spool is `full` from here on."""
        assert not self.full, "a batch waits for an acknowledgement already"
        assert first_index == self._end.index, "the agent's events have a hole"
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
        """Read whole records from the one that holds event `index` on: up to `bytes_max` of events, but at least one.

        Going on where the last call ended reads nothing twice. Raises `SpoolFailed`.
        """
        assert self._kept.index <= index <= self._end.index, "these events are acknowledged, or never were"
        found: list[Record] = []
        total = 0
        position = self._read if index == self._read.index else self._kept
        with _failing(f"cannot read the spool {self.path}"):
            for record, offset in _records(self._descriptor, position, self._end.offset):
                if record.next_index > index:
                    total += len(record.events)
                    if found and total > bytes_max:
                        break
                    found.append(record)
                self._read = position = _Position(record.next_index, offset)
        last = self._aside
        if last is not None and last.next_index > index and (not found or total + len(last.events) <= bytes_max):
            found.append(last)
        assert found or index == self._end.index, "the spool lost a record"
        return found

    def acknowledge(self, next_index: int) -> None:
        """Drop every event below `next_index`, which the broker has stored; an older acknowledgement changes nothing.

        A power cut can lose records that were sent: the broker's count then stands, and the next event follows it.
        Raises `SpoolFailed`.
        """
        with _failing(f"cannot read the spool {self.path}"):
            if next_index >= self._end.index:
                gap = next_index > self._end.index or self.full  # between the file's content and the next record
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
                    begin = max(self._begin, self._reclaimed - _PAGE_BYTES)  # with the page that was half kept
                    with suppress(OSError):  # no holes here: the room is given back when all is acknowledged
                        punch(self._descriptor, begin, self._kept.offset)
                    self._reclaimed = self._kept.offset
        if self._read.index < self._kept.index:
            self._read = self._kept

    def cut_back(self, index: int) -> None:
        """Drop every record from event `index` on, where one begins; the next goes there. Raises `SpoolFailed`."""
        assert self._kept.index <= index <= self._end.index, "these events are acknowledged, or never were"
        with _failing(f"cannot cut the spool {self.path}"):
            position = self._kept
            for record, offset in _records(self._descriptor, self._kept, self._end.offset):
                if record.next_index > index:
                    break
                position = _Position(record.next_index, offset)
            assert position.index == index, "a record begins there"
            os.ftruncate(self._descriptor, position.offset)
        self._end = position
        if self._read.index > index:
            self._read = self._kept

    def close(self) -> None:
        """Close the file; a later `recover` finds it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Delete the file: the attempt is over, and all was delivered that the broker takes."""
        self.close()
        with _failing(f"cannot remove the spool {self.path}"):
            self.path.unlink(missing_ok=True)

    def _reclaim(self) -> None:
        """Free the file's space, as all of it is acknowledged, and mark the position that was reached.

        The mark needs no room: it stands in the same page as the header.
        """
        index = self._end.index
        mark = _encoder.encode(Record(first_index=index, count=0, events=b""))
        try:
            os.ftruncate(self._descriptor, self._begin)
            self._kept = self._read = self._end = _Position(index, self._begin)
            self._reclaimed = self._begin
            size = self._write(mark)
        except (OSError, SpoolFailed):  # later records are sent from memory, until this can be done
            self._writable = False
        else:
            self._writable = True
            self._kept = self._read = self._end = _Position(index, self._begin + size)

    def _write(self, packed: bytes) -> int:
        with _failing(f"cannot write the spool {self.path}"):
            try:
                _write_all(self._descriptor, packed)
            except OSError:
                self._writable = False
                os.ftruncate(self._descriptor, self._end.offset)  # no torn record in the middle
                self._writable = True
                raise
        return len(packed)


def spools_in(folder: Path) -> list[Path]:
    """List the spools that the last agent left, in order."""
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
    """Read records from `position` on, each with the offset after it, up to the first that cannot be a record."""
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


@contextmanager
def _failing(doing: str) -> Generator[None]:
    """Translate the operating system's error into this module's."""
    try:
        yield
    except OSError as error:
        raise SpoolFailed(f"{doing}: {error.strerror}", error) from error
