"""What requests count for, against who pays for them: before they are decoded, and when the store is done. Pure.

One unit is a small request: what most are, and some 200 µs of the broker's. What the store counts is finer, and charged
only beyond what is usual for a request that does as much: else a busy tenant would pay for its jobs twice.
"""

from __future__ import annotations

from typing import Final

from airunner.protocol.messages import (
    DequeueJob,
    EnqueueJob,
    ListAgents,
    ListJobs,
    ListQueues,
    ListSecrets,
    PublishJobEvents,
    ReplayJobEvents,
    StoreRequest,
    UpdateJob,
)

VERIFYING_UNITS: Final = 4  # a signature takes as long as four other things
BYTES_A_UNIT: Final = 4_096  # of a request that is decoded to the last value
VALUES_A_UNIT: Final = 64
EVENT_BYTES_A_UNIT: Final = 65_536  # of events, which are looked at as a whole
ROWS_A_UNIT: Final = 4
UNITS_A_PAGE: Final = 8
USUAL_COST: Final = 8
REPLY_BYTES_A_UNIT: Final = 32_768  # what is sent waits in memory while its peer does not read: by default 31 MiB/s


def units_of_decoding(size_bytes: int, values: int, *, events: bool) -> int:
    """What a body of so many bytes and values counts for, whatever it asks; `events`: most of it are some."""
    return 1 + size_bytes // (EVENT_BYTES_A_UNIT if events else BYTES_A_UNIT) + values // VALUES_A_UNIT


def units_of(request: StoreRequest) -> int:
    """What a request counts for, besides its decoding: roughly what it costs the broker."""
    match request:
        case EnqueueJob(jobs=jobs):
            return len(jobs) - 1
        case ListJobs(page_size=rows):
            return rows // ROWS_A_UNIT
        case ReplayJobEvents(kinds=kinds) if kinds:
            return 2 * UNITS_A_PAGE - 1  # a page is looked through, whatever is sent of it
        case ListQueues() | ListAgents() | ListSecrets():
            return UNITS_A_PAGE - 1
        case _:
            return 0


def cost_of_reply(size_bytes: int) -> int:
    """What a reply of so many bytes costs, in the units of what the store costs."""
    return size_bytes // REPLY_BYTES_A_UNIT


def usual_cost(request: StoreRequest) -> int:
    """What a request may cost the store for what it was let in for: a few times what it does on a small one."""
    match request:
        case EnqueueJob(jobs=jobs):
            return USUAL_COST + 2 * len(jobs)
        case DequeueJob(slots=slots):
            return USUAL_COST + 2 * slots
        case PublishJobEvents(batches=batches, completions=completions):
            return USUAL_COST * (1 + len(batches) + len(completions))
        case UpdateJob(leases=leases):
            return USUAL_COST + len(leases)
        case ReplayJobEvents():
            return 1  # who follows a job asks often, mostly for a run or two; what more a page holds is charged
        case _:
            return USUAL_COST
