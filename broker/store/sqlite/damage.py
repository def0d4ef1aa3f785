"""Damage in the store: pages and rows that cannot be read, and the jobs that are set aside for it.

A disk that returns an error, or other bytes than were written, is to cost the jobs that these were about, and no other:

- A command that meets damage is rolled back with its batch; the job it is about is set aside, or else the command is
  refused with `corrupt-log`; then the batch is applied again, without either.
- A job that is set aside is as good as gone until a backup is put back: nothing is written to it, its lease does not
  expire, it is neither leased nor removed. What can be read of it is still shown.
- Damage that no command is about (the schema, the transaction itself) ends the broker, in words.

Nothing of this is stored: after a restart it is met again. `airunner store check` finds all of it at once.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import apsw

from airunner.protocol.bounds import UNDECODABLE

READ_FAULTS: Final = (apsw.CorruptError, apsw.IOError)
_READING: Final = frozenset(
    {
        apsw.SQLITE_IOERR_READ,
        apsw.SQLITE_IOERR_SHORT_READ,
        apsw.SQLITE_IOERR_CORRUPTFS,
        apsw.SQLITE_IOERR_DATA,
    }
)


class Damaged(Exception):
    """A page or row of the store cannot be read; it is about job `key` (its number or id), where that is known."""

    def __init__(self, words: str, key: int | str | None = None) -> None:
        super().__init__(words)
        self.key = key


class Aside:
    """The jobs that are set aside, by their number or id; `met`: how often damage was met, reads included.

    `careful`: what is changed for many jobs at once is changed for one after the other, so that it is known whose row
    is damaged.
    """

    def __init__(self) -> None:
        self.met = 0
        self.careful = False
        self._keys: set[int | str] = set()

    def __contains__(self, key: int | str) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: int | str) -> bool:
        """Set a job aside; False: it was already."""
        before = len(self._keys)
        self._keys.add(key)
        return len(self._keys) > before

    @property
    def others(self) -> str:
        """A condition in SQL: the row's `number` is none of theirs."""
        numbers = sorted(key for key in self._keys if isinstance(key, int))
        return f"number NOT IN ({', '.join(map(str, numbers))})" if numbers else "TRUE"


def damage_of(error: apsw.Error) -> Exception:
    """A read fault as `Damaged`; any other error as it is."""
    if isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) not in _READING:
        return error
    return Damaged(str(error))


@contextmanager
def about(key: int | str) -> Generator[None]:
    """Damage that is met in this block is about this job."""
    try:
        yield
    except Damaged as damaged:
        raise Damaged(str(damaged), key) from damaged
    except UNDECODABLE as error:
        raise Damaged(f"a value cannot be decoded: {error}", key) from error
