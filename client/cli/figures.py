"""Figures of a job's usage, in words for `show` and in cells for lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from airunner.client.cli.wording import duration_text
from airunner.protocol.job import Job, JobSummary
from airunner.protocol.usage import Usage

_UNITS: Final = ("KiB", "MiB", "GiB", "TiB")


def bytes_text(size: int) -> str:
    """Format a size: `512 bytes`, `1.5 KiB`, `23.0 MiB`."""
    power = min(len(_UNITS), (size.bit_length() - 1) // 10)
    if power < 1:
        return f"{size} bytes" if size != 1 else "1 byte"
    return f"{size / 1_024**power:.1f} {_UNITS[power - 1]}"


def usage_facts(job: Job) -> list[tuple[str, str]]:
    """List the usage of the last attempt by name; an unknown figure is empty."""
    usage = (job.result.usage if job.result is not None else None) or Usage()
    cpu = usage.cpu_user_ms + usage.cpu_system_ms
    written = usage.stdout_bytes + usage.stderr_bytes
    disk = usage.read_bytes + usage.written_bytes
    output = f"{bytes_text(usage.stdout_bytes)} on stdout, {bytes_text(usage.stderr_bytes)} on stderr"
    times = f"{duration_text(usage.cpu_user_ms)} user, {duration_text(usage.cpu_system_ms)} system"
    read = f"{bytes_text(usage.read_bytes)} read, {bytes_text(usage.written_bytes)} written"
    return [
        ("waited", duration_text(job.waited_ms) if job.waited_ms is not None else ""),
        ("checkout", duration_text(usage.checkout_ms) if usage.checkout_ms else ""),
        ("output", output if written else ""),
        ("cpu", times if cpu else ""),
        ("memory", f"{bytes_text(usage.memory_peak_bytes)} at most in one process" if usage.memory_peak_bytes else ""),
        ("disk", read if disk else ""),
    ]


def _of_usage(words: Callable[[int], str], figure: Callable[[Usage], int]) -> Callable[[JobSummary, int], str]:
    def cell(job: JobSummary, _now_ms: int) -> str:
        usage = job.result.usage if job.result is not None else None
        return words(figure(usage)) if usage is not None and figure(usage) else ""

    return cell


def _waited(job: JobSummary, _now_ms: int) -> str:
    return "" if job.waited_ms is None else duration_text(job.waited_ms)


CELLS: Final[Mapping[str, Callable[[JobSummary, int], str]]] = MappingProxyType(
    {
        "waited": _waited,
        "checkout": _of_usage(duration_text, lambda usage: usage.checkout_ms),
        "events": _of_usage(str, lambda usage: usage.events),
        "stdout": _of_usage(bytes_text, lambda usage: usage.stdout_bytes),
        "stderr": _of_usage(bytes_text, lambda usage: usage.stderr_bytes),
        "cpu": _of_usage(duration_text, lambda usage: usage.cpu_user_ms + usage.cpu_system_ms),
        "memory": _of_usage(bytes_text, lambda usage: usage.memory_peak_bytes),
        "read": _of_usage(bytes_text, lambda usage: usage.read_bytes),
        "written": _of_usage(bytes_text, lambda usage: usage.written_bytes),
    }
)
"""Cells of optional columns, by name: shown only where `--columns` names them."""
