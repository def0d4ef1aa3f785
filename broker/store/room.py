"""Room on the store's disk: decides from the free space what may still be stored. Pure.

```
 free on the disk   ≥ --reserve-mib     less                 less than a quarter of it (64 MiB at most)
 Room               AMPLE               RUNNING              ENDING
 refused            nothing             new jobs, settings   also new leases, and events of running jobs
```

Events are refused while there is still room for commands that end a job or renew its lease: a job whose lease is not
renewed is killed and run again, a job that cannot be cancelled goes on filling the disk, and a job that has not ended
cannot be removed. So renewals, cancels, completions with their last few events, releases, expiries and retention are
tried however little space is left; the ballast (`broker/disk.py`) reserves the space that they then need.

Room is computed before a batch is applied, from the disk's free space and the state of the store:
- a page that is changed is written twice, to the journal first and into the store later;
- free pages inside the store are reused before the file grows;
- pages that are in the journal but not yet in the file are owed: the next checkpoint will take their space.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

PARTS: Final = 4  # a quarter (1/4) of the reserve is for ends of jobs, and a quarter is ballast
ENDING_BYTES_MAX: Final = 64 * 1_048_576  # most for ends of jobs: a thousand ends, each with 64 KiB of last events
BALLAST_BYTES_MAX: Final = 8 * 1_048_576  # largest ballast: the journal of a few batches, and its checkpoint
JOURNAL_BYTES: Final = 16 * 1_048_576  # the journal's usual length; it is shortened when this would use the reserve
TIGHT_JOURNAL_PAGES: Final = 256  # pages of 4 KiB between two checkpoints while the journal is short
TIGHT_JOURNAL_BYTES: Final = 1_048_576  # length of the short journal, which stays allocated and is overwritten


class Room(IntEnum):
    """Room on the disk, which decides what may be stored; a lower one refuses more."""

    ENDING = 0
    RUNNING = 1
    AMPLE = 2


class Inside(NamedTuple):
    """Size of a store in bytes, and how much of it is free pages inside the file."""

    store_bytes: int
    reusable_bytes: int


class Space(NamedTuple):
    """Free bytes on the disk, in the ballast and inside the store; the journal's length, and what it owes."""

    free_bytes: int
    ballast_bytes: int = 0
    reusable_bytes: int = 0
    journal_bytes: int = 0
    owed_bytes: int = 0


def room_of(space: Space, reserve_bytes: int, wanted_bytes: int = 0) -> Room:
    """Compute the room that is left once `wanted_bytes` of a batch are stored."""
    left_bytes = space.free_bytes + space.reusable_bytes - space.owed_bytes - 2 * wanted_bytes
    ending_bytes = min(ENDING_BYTES_MAX, reserve_bytes // PARTS)
    journal_bytes = space.free_bytes + space.journal_bytes - wanted_bytes
    if left_bytes < ending_bytes or journal_bytes < min(ending_bytes, TIGHT_JOURNAL_BYTES) // 2:
        return Room.ENDING
    return Room.AMPLE if left_bytes + space.ballast_bytes >= reserve_bytes else Room.RUNNING


def ballast_bytes(reserve_bytes: int) -> int:
    """Compute the size of the ballast, which is part of the reserve."""
    return min(BALLAST_BYTES_MAX, reserve_bytes // PARTS)
