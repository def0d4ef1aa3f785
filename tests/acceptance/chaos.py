"""Real processes, really killed: `python -m tests.acceptance.chaos --seconds 120 [--seed N]`.

A broker, three agents, eight clients and four monitors work; every second a random one of them gets SIGKILL, and is
started again a moment later, or SIGSTOP, and SIGCONT after a while that may be longer than its leases; or the disk that
broker and agents share is full for a while, where root may mount a small one. One agent and half of the monitors reach
the broker over a slow link, and connections over it are lost again and again. The machine of one agent sleeps now and
then, and its monotonic clock with it. A fourth agent, which root makes an ordinary user's and nothing else hurts, is
refused processes now and then.

Then everything is mended and drained, and what is left is judged. It exits with 1, and keeps its folder, unless nothing
was lost, done twice, holed, run twice at once, run beyond its lease, counted where a machine refused it, or left
behind. The seed draws the jobs, who is hurt, how and for how long; the rest is the machine's. However it ends, it ends
every process that it began.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Final

from airunner.protocol.errors import EXIT_USAGE
from tests.acceptance import bounded, chaos_driver
from tests.acceptance.chaos_disk import RESERVE_MIB, SmallDisk
from tests.acceptance.chaos_driver import VISIBILITY_S, Driver
from tests.acceptance.chaos_judge import Cluster, Kept
from tests.acceptance.chaos_machines import Scarcity, Suspension
from tests.acceptance.chaos_processes import JobProcess, Victim, job_processes
from tests.acceptance.chaos_users import CLIENT_KINDS
from tests.acceptance.failovers import tell
from tests.acceptance.running import make_home
from tests.acceptance.slowlink import SlowLink
from tests.ports import free_ports
from tests.simulation.history import Started, wall_ms

AGENTS: Final = 3
SLEEPER: Final = 1  # of these
CLIENTS: Final = 8
MONITORS: Final = 4
FULL_S: Final = (0.5, 4.0)
FULL_SHARE: Final = 0.3
ASLEEP_S: Final = (4.0, 9.0)
AWAKE_S: Final = (2.0, 8.0)
SCARCE_S: Final = (1.0, 4.0)
PLENTY_S: Final = (3.0, 8.0)
RETRY_S: Final = (0.5, 1.0)  # where what was to be hurt, or to have felt it, is not there yet
SLOW_BYTES_A_S: Final = 100_000.0
CUT_BYTES: Final = 200_000
NO_START: Final = f"exited with {EXIT_USAGE}"
NO_SPACE: Final = ("No space left on device", "make room")


class Chaos(Driver):
    """The cluster, and what is done to it."""

    tick_s = 1.0

    def __init__(self, folder: Path, seed: int, _: ExitStack) -> None:
        super().__init__(folder, seed)
        self._endpoint = ""
        self._disk = SmallDisk(self.home)
        self._full = False
        self._link: SlowLink | None = None
        self._suspension = Suspension(folder, self.home, VISIBILITY_S)
        self._scarcity = Scarcity(self.home)

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.folder, self.home, self._endpoint, self._begun_ms, VISIBILITY_S * 1_000)

    def start(self) -> None:
        make_home(self.home)
        requests, events, http = free_ports()
        self._endpoint = f"tcp://127.0.0.1:{requests}"
        self._link = SlowLink(self._endpoint, SLOW_BYTES_A_S, CUT_BYTES)
        if self._disk.why_not:
            tell(self._disk.why_not)
        listen = ["--listen", self._endpoint, "--events", f"tcp://127.0.0.1:{events}"]
        doors = [*listen, "--http", f"127.0.0.1:{http}", "--reserve-mib", str(RESERVE_MIB)]
        self._start(self._brokers, "broker", ["airunner", "broker", *doors])
        agent = ["agent", "--spawn", "2", "--visibility-timeout", str(VISIBILITY_S), "--cancel-grace", "1", "--name"]
        for number in range(AGENTS):
            name = f"agent-{number}"
            module = self._suspension.module if number == SLEEPER else ["airunner"]
            self._start(self._agents, name, [*module, *agent, name], slow=number == 0)
        if self._scarcity.why_not:
            tell(f"no machine refuses processes here: {self._scarcity.why_not}")
        else:
            self.folder.chmod(0o711)
            self._scarcity.prepare()
            self._start(self._calm, "scarce", [bounded.MODULE, *agent, "scarce"], more=self._scarcity.variables)
        kinds = [*CLIENT_KINDS * (CLIENTS // 2), *["monitor"] * MONITORS]
        for number, kind in enumerate(kinds):
            name = f"{kind}-{number}"
            user = ["tests.acceptance.chaos_users", kind, name, str(self.folder), str(self._seed)]
            self._start(self._users, name, user, slow=kind == "monitor" and number % 2 == 0)

    def rage(self, seconds: float) -> None:
        self._fall_asleep()
        if self._calm:
            self._take_processes()
        super().rage(seconds)

    def _awake(self) -> list[JobProcess]:
        return [one for one in job_processes(self.home) if one.pid not in self._suspension.asleep]

    def _mend(self) -> None:
        self._give_room()
        self._scarcity.end()
        self._wake()

    def _judge_more(self, kept: Kept) -> None:
        del kept
        refusals, outslept = self.findings.refusals, self._suspension.outslept
        self.findings.note(f"{refusals} attempts refused by a machine, {outslept} leases that were slept past")
        never = [] if refusals or self._scarcity.why_not else ["a machine that refuses"]
        self._judge_seen(never + ([] if outslept else ["a lease that ran out in a sleep"]))

    def end(self) -> None:
        """Kill all that still runs; the disk is kept where something was found."""
        self._suspension.end()
        super().end()
        if self._link is not None:
            self._link.close()
        self._disk.close(keep=not self.findings.clean)

    @property
    def _hurts(self) -> str:
        lost = 0 if self._link is None else self._link.lost
        hurts = f"{self._signals()}, {self._disk.fills} full disks, {lost} lost connections"
        return f"{hurts}, {self._suspension.sleeps} sleeps, {self._scarcity.times} times without processes"

    def _start(
        self,
        among: list[Victim],
        name: str,
        arguments: list[str],
        more: Mapping[str, str] = MappingProxyType({}),
        *,
        slow: bool = False,
    ) -> None:
        endpoint = self._link.endpoint if slow and self._link is not None else self._endpoint
        among.append(Victim(name, arguments, self.home, {"AIRUNNER_BROKER": endpoint, **more}))

    def _hurt(self) -> None:
        whole = [victim for victim in self._all if victim.whole and victim not in self._calm]
        if not whole:
            return
        victim = self._random.choice(whole)
        fate = self._random.random()
        if fate < FULL_SHARE and not self._disk.why_not and not self._full and all(one.alive for one in self._all):
            self._full = True
            self._disk.fill()
            self._soon(FULL_S, self._give_room)
        elif fate < 0.5:
            self._kill(victim)
        else:
            self._stop(victim)

    def _fall_asleep(self) -> None:
        """Suspend the sleeper's machine while it has a job and nothing else has befallen it; and again, later."""
        sleeper = self._agents[SLEEPER]
        if sleeper.whole and self._suspension.begin(sleeper):
            self._soon(ASLEEP_S, self._wake)
        else:
            self._soon(RETRY_S, self._fall_asleep)

    def _wake(self) -> None:
        self.findings.add("outlived their lease", self._suspension.end())
        self._soon(AWAKE_S, self._fall_asleep)

    def _take_processes(self) -> None:
        (agent,) = self._calm
        if self._scarcity.begin(agent):
            self._soon(SCARCE_S, self._give_processes)
        else:
            self._soon(RETRY_S, self._take_processes)

    def _give_processes(self) -> None:
        """Once they were missed."""
        if not self._scarcity.felt:
            self._soon(RETRY_S, self._give_processes)
            return
        self._scarcity.end()
        self._soon(PLENTY_S, self._take_processes)

    def _give_room(self) -> None:
        self._full = False
        self._disk.empty()

    def _is_expected(self, victim: Victim, died: str) -> bool:
        """Whether it said that the disk is full."""
        del victim
        return bool(self._disk.fills) and NO_START in died and any(words in died for words in NO_SPACE)

    def _note_death(self, victim: Victim, why: str) -> None:
        """For the history; a broker is started again, and not before that."""
        super()._note_death(victim, why)
        if victim in self._brokers:
            self._deaths.append(Started(at_ms=wall_ms(), machine=victim.name, broker=True))


if __name__ == "__main__":
    sys.exit(chaos_driver.main("chaos", __doc__, Chaos))
