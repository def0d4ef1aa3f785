"""What a queue is: a name, a mode, and a count of what is in it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from airunner.protocol.names import Natural


class QueueMode(StrEnum):
    """What a queue lets happen. What runs already runs on in every mode."""

    OPEN = "open"
    PAUSED = "paused"  # takes jobs, and leases none
    DRAINING = "draining"  # leases jobs, and takes none


class QueueSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`waiting` jobs, `delayed` ones that are not due yet among them; `oldest_ms`: since when the longest has waited.

    `oldest_ms` is the instant of its submission, in ms since the epoch; None where none waits.
    """

    queue: str
    mode: QueueMode
    waiting: Natural
    running: Natural
    delayed: Natural = 0
    oldest_ms: Natural | None = None
