"""What an attempt has used of its machine, as its agent measured it."""

from __future__ import annotations

from msgspec import Struct

from airunner.protocol.names import Natural


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Figures of one attempt; 0 is nothing, or not known.

    Processor time, memory and disk are those of the command and of all that it started, as the kernel counts them when
    they end. `memory_peak_bytes` is the largest that any one of these processes was; the kernel counts the some 12 MiB
    of the process that starts them among it, so it is never less. `read_bytes` and `written_bytes` are what went from
    and to a disk. `stdout_bytes` and `stderr_bytes` are what was written there, also what the log leaves out; a
    terminal has only the first. `events` is how many the attempt has published.
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
