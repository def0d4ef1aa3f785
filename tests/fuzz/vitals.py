"""How the broker is: its memory and its open files through a run, its log, and its store when it has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

from tests.acceptance.running import RunningBroker, metrics

WARM_UP_SHARE: Final = 0.2  # of the messages: by then every cache, queue and pool has been as full as it gets
GROWTH_MIB_MAX: Final = 24.0
"""What memory may be above the highest of the warm-up: room for an allocator's moods. Of 1,600,000 messages that follow
it, each may leave 15 bytes behind; the smallest object of Python's that a table holds takes several times that."""
FILES_MORE_MAX: Final = 16  # open at the end and not at the beginning: connections whose end is not yet seen
_KIB_A_MIB: Final = 1_024


class Vitals:
    """Looks at one broker process now and then."""

    def __init__(self, broker: RunningBroker) -> None:
        self._broker = broker
        self._pid = broker.process.pid
        self.first_mib = self.last_mib = self._memory_mib()
        self.warm_mib = self.highest_mib = self.first_mib
        self._files = self._open_files()

    def look(self, share: float) -> None:
        """Note how it is when this share (0 to 1) of the run is done."""
        self.last_mib = self._memory_mib()
        if share <= WARM_UP_SHARE:
            self.warm_mib = max(self.warm_mib, self.last_mib)
        self.highest_mib = max(self.highest_mib, self.last_mib)

    def faults(self) -> list[str]:
        """What is wrong with it while it still runs."""
        if not self._broker.process.running or self._broker.process.pid != self._pid:
            return ["the broker has ended: " + " | ".join(self._broker.process.lines[-20:])]
        found: list[str] = []
        if self.highest_mib - self.warm_mib > GROWTH_MIB_MAX:
            found.append(f"memory grew from {self.warm_mib:.1f} to {self.highest_mib:.1f} MiB after the warm-up")
        more = self._open_files() - self._files
        if more > FILES_MORE_MAX:
            found.append(f"{more} more files are open than at the beginning")
        return found

    def stop(self) -> list[str]:
        """End it as an operator would; what is wrong with that, or with what it leaves."""
        code = self._broker.stop()
        found = [f"the broker stopped with exit code {code}"] if code else []
        found += [f"the broker said {line!r}" for line in self._broker.process.lines if "Traceback" in line]
        connection = apsw.Connection(str(self._broker.home / "broker" / "airunner.db"))
        try:
            found += [f"the store: {line}" for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
        finally:
            connection.close()
        return found

    def counted(self) -> dict[str, float]:
        """What /metrics says."""
        counted = metrics(self._broker.http)
        return {name.removeprefix("airunner_").removesuffix("_total"): count for name, count in counted.items()}

    def _memory_mib(self) -> float:
        try:
            status = Path(f"/proc/{self._pid}/status").read_text()
        except OSError:
            return 0.0
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")] or ["VmRSS: 0 kB"]
        return int(line.split()[1]) / _KIB_A_MIB

    def _open_files(self) -> int:
        return len(list(Path(f"/proc/{self._pid}/fd").iterdir()))
