"""The allow-list file of the broker: which CURVE keys may connect, with which roles.

```
# a comment (a key cannot begin with #: the first of five Z85 characters that encode 32 bits is never # or $)
Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID  build-7  agent tenant=acme queue=ci,nightly
D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs  local    client agent
```

Guarantees
- A change of the file takes effect at the next handshake or request, without a restart: the broker calls `stat`
  each time, and reads the file if the result differs from the last. The result contains the time of the last change
  (ctime), which no user can set. But two changes may have the same time, because the clock of a file system is coarse.
  So the file's content is also compared each time until its `stat` result has been the same for `SETTLED_S`: a later
  change has a later time. The broker measures `SETTLED_S` on its own clock, and never compares two clocks.
- The list fails closed. A line that cannot be parsed admits nobody and is reported by its number; the other lines
  stay valid. A file that cannot be read admits nobody, and peers are told to retry instead of "not on the list".
- Strangers can use up the process's descriptors, so that it cannot open the file. Then the entries that were read last
  stay valid as long as `stat` shows an unchanged file.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.certs.curve import raw_key, text_key
from airunner.certs.principal import QueueScope
from airunner.certs.secretfile import read_public
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import NAME_CHARS_MAX, fits_name

COMPLAINTS_MAX: Final = 20  # invalid lines that are reported; a binary file copied here by mistake has thousands
_PREFACE: Final = (
    b"# Machines that may connect to this broker: PUBLIC-KEY NAME ROLE... [tenant=TENANT] [queue=QUEUE,...]"
    b"  (roles: client, agent, broker)\n"
)
_SHAPE: Final = "a line is: PUBLIC-KEY NAME ROLE... [tenant=TENANT] [queue=QUEUE,...]"
SETTLED_S: Final = 3.0  # seconds: more than the resolution of every file system's clock, which is at most 2 s (FAT)
_Stamp = tuple[int, ...]  # of a file: what `stat` shows of its identity, size, owner, mode and times


class PeerRole(StrEnum):
    """Roles that the allow-list may give to a machine."""

    CLIENT = "client"
    AGENT = "agent"
    BROKER = "broker"  # of the same fleet: subscribes to live events for its own listeners, and requests nothing


class Entry(Struct, frozen=True):
    """One entry of the allow-list: the machine's name and roles.

    With `tenant`, the machine may present tokens of that tenant only; with `queues`, it may use those queues only.
    """

    name: str
    roles: frozenset[PeerRole]
    tenant: str | None = None
    queues: QueueScope = None


class AllowListUnreadable(OperatorError):
    """The allow-list cannot be read: peers are told to try again, and not that their key is not listed."""


class AllowList:
    """The allow-list in the file at `path`, read again when it changed.

    `report` is called with one line of text for each problem in the file.
    """

    def __init__(
        self, path: Path, report: Callable[[str], None], steady_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._name = str(path)
        self._report = report
        self._steady_s = steady_s
        self._seen: _Stamp | None = None  # stamp of the last `stat`
        self._seen_s = 0.0  # when `_seen` was first seen
        self._settled = False  # the file was read after `SETTLED_S` without a change
        self._content = b""
        self._stamp: _Stamp | None = None  # stamp of the last read
        self._entries: Mapping[bytes, Entry] = {}
        self._complaint = ""

    def entry_for(self, public_key: bytes) -> Entry | None:
        """Return the entry of a public key, raw as ZAP carries it or Z85; None when it is not listed.

        Raises `AllowListUnreadable`.
        """
        self._refresh()
        return self._entries.get(public_key)

    def _refresh(self) -> None:
        stamp = _stamp_of(self._name)
        now_s = self._steady_s()
        if stamp is None or stamp != self._seen:
            self._seen, self._seen_s, self._settled = stamp, now_s, False
        if self._settled:
            return
        same = stamp is not None and stamp == self._stamp and self._reads_as_before()
        try:
            content = self._content if same else read_public(self._path, "the allow-list")
        except OperatorError as error:
            if _no_descriptor(error) and stamp is not None and stamp == self._stamp:
                return
            if self._complaint != error.message:  # reported once, not at every handshake
                self._complaint = error.message
                self._report(error.message)
            raise AllowListUnreadable(error.message) from error
        self._complaint = ""
        self._stamp = stamp
        self._settled = now_s - self._seen_s >= SETTLED_S
        if content != self._content:
            entries, complaints = parse(content)
            self._entries = {**entries, **{text_key(key).encode("ascii"): entry for key, entry in entries.items()}}
            self._content = content
            for complaint in complaint_lines(self._path, complaints):
                self._report(complaint)

    def _reads_as_before(self) -> bool:
        """Check whether the file has the same content as when it was last read: this takes a sixth of reading it.

        Its owner and mode are those that were checked then, because they are in its stamp.
        """
        try:
            descriptor = os.open(self._name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                return os.pread(descriptor, len(self._content) + 1, 0) == self._content
            finally:
                os.close(descriptor)
        except OSError:
            return False


def _stamp_of(path: str) -> _Stamp | None:
    """Return the file's stamp, which needs no descriptor to read; None when `stat` fails."""
    try:
        status = os.stat(path)  # noqa: PTH116 - twice as fast as Path.stat, and called for each request
    except OSError:
        return None
    place = (status.st_dev, status.st_ino)
    return (*place, status.st_size, status.st_uid, status.st_mode, status.st_mtime_ns, status.st_ctime_ns)


def _no_descriptor(error: OperatorError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.EMFILE, errno.ENFILE)


def parse(content: bytes) -> tuple[dict[bytes, Entry], list[tuple[int, str]]]:
    """Parse the list: return the entries by raw key, and the number and error of each line that is invalid."""
    entries: dict[bytes, Entry] = {}
    complaints: list[tuple[int, str]] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        words = line.split()
        if not words or words[0].startswith(b"#"):
            continue
        try:
            key, entry = _parse_line(words)
        except ValueError as error:
            complaints.append((number, str(error)))
            continue
        first = entries.setdefault(key, entry)
        if first is not entry:
            complaints.append((number, f"the key is already listed, as {first.name}"))
    return entries, complaints


def complaint_lines(path: Path, complaints: list[tuple[int, str]]) -> list[str]:
    """Return one line of text for each complaint of `parse` about the file at `path`, at most `COMPLAINTS_MAX`."""
    lines = [f"{path}:{number}: {why}; the line is ignored" for number, why in complaints[:COMPLAINTS_MAX]]
    more = len(complaints) - len(lines)
    return [*lines, f"{path}: {more} more lines are ignored"] if more else lines


def _parse_line(line: list[bytes]) -> tuple[bytes, Entry]:
    """Parse the words of one line into a raw key and its entry; raises `ValueError` with the reason."""
    text, *rest = line
    key = raw_key(text)
    name, *words = (word.decode("ascii", errors="replace") for word in rest or [b""])
    if not words:
        raise ValueError(_SHAPE)
    if not name.isascii() or not name.isprintable() or len(name) > NAME_CHARS_MAX:
        raise ValueError(f"a name has at most {NAME_CHARS_MAX} printable ASCII characters")
    roles: list[str] = []
    tenant: str | None = None
    queues: QueueScope = None
    for word in words:
        match word.partition("="):
            case ("tenant", "=", bound) if tenant is None and fits_name(bound):
                tenant = bound
            case ("queue", "=", bound) if queues is None and all(map(fits_name, bound.split(","))):
                queues = frozenset(bound.split(","))
            case (role, "", _):
                roles.append(role)
            case _:
                raise ValueError(_SHAPE)
    if not roles:
        raise ValueError(_SHAPE)
    try:
        return key, Entry(name, frozenset(PeerRole(role) for role in roles), tenant, queues)
    except ValueError:
        raise ValueError(f"the roles are: {', '.join(PeerRole)}") from None


def with_entry(content: bytes, public_key: bytes, entry: Entry) -> bytes:
    """Return the list `content` with one more line; an empty list gets a heading too. `public_key` is Z85."""
    raw_key(public_key)
    before = content or _PREFACE
    if not before.endswith(b"\n"):
        before += b"\n"
    words = [entry.name, *sorted(entry.roles)]
    if entry.tenant is not None:
        words.append(f"tenant={entry.tenant}")
    if entry.queues is not None:
        words.append(f"queue={','.join(sorted(entry.queues))}")
    return before + public_key + f" {' '.join(words)}\n".encode("ascii")


def without_entry(content: bytes, name: str) -> bytes:
    """Return the list without the lines of the machine `name`."""
    lines = content.splitlines(keepends=True)
    return b"".join(line for line in lines if line.lstrip().startswith(b"#") or line.split()[1:2] != [name.encode()])
