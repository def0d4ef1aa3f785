"""What a flood tells the run that started it: how far it is and what it was answered, one line of JSON at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tests.acceptance.running import Process

TOLD_EVERY: Final = 1_000  # messages
LAST_WORDS: Final = 30  # lines


class Tally(Struct):
    """Counts so far; `seconds` is how long it took."""

    sent: int = 0
    seconds: float = 0.0
    outcomes: dict[str, int] = {}


class Teller:
    """The flood's side: prints a tally now and then, and the last one at the end."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.sent = 0
        self._begun_s = time.monotonic()

    def sent_one(self) -> None:
        self.sent += 1
        if self.sent % TOLD_EVERY == 0:
            self.tell()

    def tell(self) -> None:
        tally = Tally(self.sent, time.monotonic() - self._begun_s, dict(self.outcomes))
        sys.stderr.write(msgspec.json.encode(tally).decode() + "\n")


class Flood:
    """The run's side: `python -m MODULE ARGUMENTS`, which ends by itself, and the newest of what it told."""

    def __init__(self, name: str, home: Path, module: str, *arguments: str) -> None:
        self.name = name
        self._process = Process(home, arguments, module=module)
        self.end = self._process.kill

    @property
    def tally(self) -> Tally:
        told = (line for line in reversed(self._process.lines) if line.startswith("{"))
        return msgspec.json.decode(next(told, "{}"), type=Tally)

    def running(self, within_s: float = 0.0) -> bool:
        """Whether it still runs after a while."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        return self._process.running

    def fault(self) -> str | None:
        """Once it has ended: what went wrong."""
        words = " | ".join(line for line in self._process.lines[-LAST_WORDS:] if not line.startswith("{"))
        code = self._process.wait()
        return f"{self.name}: after {self.tally.sent} messages, exit code {code}: {words}" if code else None
