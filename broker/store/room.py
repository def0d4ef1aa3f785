"""Room on the store's disk: decides what may still be stored with how much free space. Pure.

```
 free on the disk   ≥ --reserve-mib       below that             below a quarter of it, or 64 MiB
 Room               AMPLE                 RUNNING                KEEPING
 refused            nothing               new jobs, secrets      and leases, and events of what runs
```

Events are refused while there is still room for commands that end or keep a job: a job whose lease is not renewed is
killed and run again, a job that cannot be cancelled goes on filling the disk, and a job that has not ended cannot be
removed. So renewals, cancels, completions with their last few events, releases, expiries and retention are tried
however little is left; the ballast (`broker/disk.py`) holds the space that they need then.

Room is computed before a batch is applied, from the free space and from what the store itself holds or owes:
- a page that is changed is written twice, to the journal first and into the store later;
- what was removed from the store is reused before the file grows;
- what is in the journal only, and beyond the store's end, is owed: the next checkpoint takes it from the disk.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

PARTS: Final = 4  # a quarter of the reserve is for ends of jobs, and a quarter is ballast
KEEPING_BYTES_MAX: Final = 64 * 1_048_576  # a thousand ends, each with the 64 KiB of events that may come with it
BALLAST_BYTES_MAX: Final = 8 * 1_048_576  # what the journal owes after a few batches, and the checkpoint of that
JOURNAL_BYTES: Final = 16 * 1_048_576  # the usual journal: where it does not fit beside the reserve, it is kept short
TIGHT_JOURNAL_PAGES: Final = 256  # between two checkpoints while there is little room: SQLite's pages of 4 KiB
TIGHT_JOURNAL_BYTES: Final = 1_048_576  # as much of the journal stays allocated: renewals are written in place


class Room(IntEnum):
    """Room on the disk: how much may be stored."""

    KEEPING = 0
    RUNNING = 1
    AMPLE = 2


class Inside(NamedTuple):
    """Size of a store, in bytes, and how much of it is free inside the file and reused before the file grows."""

    store_bytes: int
    reusable_bytes: int


class Space(NamedTuple):
    """Space that is left, in bytes: on the disk, in the ballast and inside the store; what the journal has and owes."""

    free_bytes: int
    ballast_bytes: int = 0
    reusable_bytes: int = 0
    journal_bytes: int = 0
    owed_bytes: int = 0


def room_of(space: Space, reserve_bytes: int, wanted_bytes: int = 0) -> Room:
    """Compute the room for the rest of a batch, once `wanted_bytes` of it are stored."""
    left_bytes = space.free_bytes + space.reusable_bytes - space.owed_bytes - 2 * wanted_bytes
    keeping_bytes = min(KEEPING_BYTES_MAX, reserve_bytes // PARTS)
    journal_bytes = space.free_bytes + space.journal_bytes - wanted_bytes
    if left_bytes < keeping_bytes or journal_bytes < min(keeping_bytes, TIGHT_JOURNAL_BYTES) // 2:
        return Room.KEEPING
    return Room.AMPLE if left_bytes + space.ballast_bytes >= reserve_bytes else Room.RUNNING


def ballast_bytes(reserve_bytes: int) -> int:
    """Compute the size of the ballast, a part of the reserve."""
    return min(BALLAST_BYTES_MAX, reserve_bytes // PARTS)
