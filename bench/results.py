"""Results of the benchmark as a JSON file: every figure with the readings of all rounds, and the machine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw
import msgspec
import zmq
from msgspec import Struct

from bench.figures import Row
from bench.product import described

FOLDER: Final = Path(__file__).parent / "results"


class Machine(Struct, frozen=True):
    """Machine on which the figures were measured."""

    cores: int
    processor: str
    system: str
    python: str
    sqlite: str
    libzmq: str


class Report(Struct, frozen=True):
    """Results of one run: `base` is the revision that was measured beside `revision`, `notes` says what is missing."""

    utc: str
    revision: str
    base: str
    seconds: float
    machine: Machine
    notes: list[str]
    figures: list[Row]


def machine() -> Machine:
    """Describe this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        processor=model or platform.machine(),
        system=platform.system(),
        python=sys.version.split()[0],
        sqlite=apsw.sqlite_lib_version(),
        libzmq=zmq.zmq_version(),
    )


def report(figures: Sequence[Row], notes: Sequence[str], base: str, seconds: float) -> Report:
    """Make the report of a run that ends now."""
    utc = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return Report(utc, described(), base, seconds, machine(), list(notes), list(figures))


def write(result: Report, prefix: str = "") -> Path:
    """Write a report to the folder of results, in a file of its instant and revision; return its path."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{prefix}{result.utc}-{result.revision.rstrip('+')}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    return path
