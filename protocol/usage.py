"""Resource usage of an attempt, as its agent measured it."""

from __future__ import annotations

from msgspec import Struct

from airunner.protocol.names import Natural


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Usage of one attempt; 0 means nothing, or unknown.

    Processor time, memory and disk are those of the command and of every process that it started, as the kernel counts
    them when they end. `memory_peak_bytes` is the peak of the largest of these processes; it includes the process that
    starts them, and so is at least 12 MiB. `read_bytes` and `written_bytes` went from and to a disk. `stdout_bytes` and
    `stderr_bytes` count what was written, including what the log leaves out; a terminal has only the first. `events` is
    the number of events that the attempt has published.
    """

    stdout_bytes: Natural = 0
    stderr_bytes: Natural = 0
    events: Natural = 0
    cpu_user_ms: Natural = 0
    cpu_system_ms: Natural = 0
    memory_peak_bytes: Natural = 0
    read_bytes: Natural = 0
    written_bytes: Natural = 0
    checkout_ms: Natural = 0
