"""What a flood tells the run that started it: how far it is and what it was answered, one line of JSON at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from threading import Event, Thread
from typing import Final

import msgspec
from msgspec import Struct

from tests.acceptance.running import REPOSITORY, environment

TOLD_EVERY: Final = 1_000  # messages
LAST_WORDS_BYTES: Final = 2_000


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
        sys.stdout.write(msgspec.json.encode(tally).decode() + "\n")
        sys.stdout.flush()


class Flood:
    """The run's side: `python -m MODULE ARGUMENTS`, which ends by itself, and the newest of what it told."""

    def __init__(self, name: str, home: Path, module: str, *arguments: str) -> None:
        self.name = name
        self.tally = Tally()
        self.ended = Event()
        self._errors = home.parent / f"{name}.log"
        with self._errors.open("wb") as errors:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=REPOSITORY,
                env=environment(home),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def fault(self) -> str | None:
        """Once it has ended: what went wrong."""
        self._reader.join()
        code = self._popen.wait()
        words = self._errors.read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace")
        return f"{self.name}: after {self.tally.sent} messages, exit code {code}: {words}" if code else None

    def end(self) -> None:
        """SIGKILL, where it still runs."""
        self._popen.kill()
        self._popen.wait()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for line in lines:
                self.tally = msgspec.json.decode(line, type=Tally)
        self.ended.set()
