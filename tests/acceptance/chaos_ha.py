"""Several brokers, really killed: `python -m tests.acceptance.chaos_ha --seconds 600 [--seed N]`.

Three brokers share a PostgreSQL server; four agents, six clients, four monitors and three parkers work. Every second
something of this happens, in a drawn order in which each comes round: PostgreSQL gets SIGKILL, whole; a broker, an
agent or a user gets SIGKILL, or SIGSTOP for seconds; a broker gets SIGSTOP for longer than it takes the others to adopt
its jobs; the connection of a broker to PostgreSQL is cut in COMMIT, before the server has it or after; a broker is
parted from PostgreSQL, from the other brokers, or from both; the clock of one is set by three hours. One agent is hurt
by nothing of that but through its brokers.

Then everything is mended and drained, and judged as in `chaos`. It exits with 1, and keeps its folder, unless nothing
was lost, done twice, holed, run twice at once or left behind, the agent that nobody hurt has lost no job, and everybody
who asked for jobs was answered in time. The seed draws the jobs, who is hurt, how and for how long; the rest is the
machine's. However it ends, it ends every process that it began.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event as Wakeup
from typing import Final

import anyio

from airunner.certs.home import Home
from airunner.certs.principal import ALL_ROLES
from airunner.certs.tokenkeys import load_signing_key
from airunner.certs.tokens import TokenSigner
from tests.acceptance.chaos_fleet import ADOPTED, FENCED, SUPERVISED, Fleet, Member
from tests.acceptance.chaos_judge import Cluster, Findings, drain, judge
from tests.acceptance.chaos_processes import (
    Victim,
    airunner_processes,
    command_of,
    job_processes,
    kill,
    run_in_folder,
    two_at_once,
)
from tests.acceptance.chaos_users import CLIENT_KINDS, STOP, accepted, diaries
from tests.acceptance.chaos_waits import answers, lost_by, unanswered
from tests.acceptance.failovers import tell
from tests.acceptance.partlink import Cut, PartLink
from tests.acceptance.running import make_home
from tests.simulation.history import Killed, Record, wall_ms

BROKERS: Final = 3
AGENTS: Final = 3
CALM: Final = "calm"  # the agent that nobody hurts
CALM_S: Final = 120  # its visibility timeout: no fault of a broker lasts as long
USERS: Final = (*("client", "shell") * 3, *("monitor",) * 4, *("parker",) * 3)
VISIBILITY_S: Final = 5
STEP_MS: Final = 3 * 3_600_000
TICK_S: Final = 1.5
LOOK_S: Final = 0.25
RESTART_S: Final = (0.0, 3.0)
STOPPED_S: Final = (0.5, 8.0)
LONG_STOP_S: Final = (16.0, 22.0)  # a broker is dead after 10 s of the others' time, of which they may lose some
PARTED_S: Final = (2.0, 16.0)
STEPPED_S: Final = (3.0, 12.0)
DOWN_S: Final = (0.2, 4.0)
ALL_SEEN_S: Final = 90.0  # in a run as long as this every fault has come round, and a broker has found itself adopted
DRAIN_S: Final = 180.0
SWEEP_S: Final = 15.0  # for what killed agents' keepers end
TELL_S: Final = 5.0
RESULTS: Final = ("broker fenced", "broker adopted")
RESTARTED: Final = "jobs lost by restarts"
UNANSWERED: Final = "parked and unanswered"


class ChaosHa:
    """The brokers, agents and users, and what is done to them."""

    def __init__(self, folder: Path, seed: int, ends: ExitStack) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.findings = Findings(RESTARTED, UNANSWERED)
        make_home(self.home)
        self._fleet = Fleet(folder, self.home, BROKERS, ends)
        self._seed = seed
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = iter(range(10**9))
        self._agents: list[Victim] = []
        self._users: list[Victim] = []
        self._calm: list[Victim] = []
        self._deck: list[str] = []
        self._away = False  # a broker is, for longer than a moment: only one at a time
        self._seen: Counter[str] = Counter()
        self._twice: dict[str, list[int]] = {}
        self._deaths: list[Record] = []
        self._seconds = 0.0
        self._told_s = time.monotonic()
        self._begun_ms = wall_ms()
        self._faults: dict[str, Callable[[], bool]] = {
            "broker killed": lambda: self._kill(self._fleet.members),
            "broker stopped": lambda: self._stop(self._fleet.members, STOPPED_S),
            "broker stopped for long": self._stop_for_long,
            "agent killed": lambda: self._kill(self._agents),
            "agent stopped": lambda: self._stop(self._agents, STOPPED_S),
            "user killed": lambda: self._kill(self._users[: -USERS.count("parker")]),
            "user stopped": lambda: self._stop(self._users[: -USERS.count("parker")], STOPPED_S),
            "PostgreSQL killed": self._kill_server,
            "cut before COMMIT": lambda: self._cut(Cut.BEFORE),
            "cut after COMMIT": lambda: self._cut(Cut.AFTER),
            "parted from PostgreSQL": lambda: self._part(store=True, peers=False),
            "parted from peers": lambda: self._part(store=False, peers=True),
            "parted from both": lambda: self._part(store=True, peers=True),
            **({} if self._fleet.clock.why_not else {"clock set": self._step_clock}),
        }

    @property
    def cluster(self) -> Cluster:
        endpoints = " ".join(self._fleet.endpoints)
        return Cluster(self.folder, self.home, endpoints, self._begun_ms, VISIBILITY_S * 1_000, STEP_MS)

    def start(self) -> None:
        """Start agents and users, who wait for brokers; their tokens hold whatever a broker's clock shows."""
        if self._fleet.clock.why_not:
            tell(self._fleet.clock.why_not)
        signer = TokenSigner(load_signing_key({}, Home(self.home)))
        since_s = time.time() - 2 * STEP_MS / 1_000
        token = signer.mint(subject="chaos", tenant="default", roles=ALL_ROLES, ttl_s=86_400, now_s=since_s)
        for number, name in enumerate([*(f"agent-{number}" for number in range(AGENTS)), CALM]):
            lease_s = CALM_S if name == CALM else VISIBILITY_S
            options = ["--spawn", "2", "--visibility-timeout", str(lease_s), "--cancel-grace", "1", "--name", name]
            among = self._calm if name == CALM else self._agents
            among.append(self._begun(name, ["airunner", "agent", *options], number, token))
        for number, kind in enumerate(USERS):
            name = f"{kind}-{number}"
            words = ["tests.acceptance.chaos_users", kind, name, str(self.folder), str(self._seed)]
            self._users.append(self._begun(name, words, number, token))

    def _begun(self, name: str, words: Sequence[str], number: int, token: str) -> Victim:
        """Start a process that tries the brokers in an order of its own."""
        first = number % BROKERS
        endpoints = " ".join(self._fleet.endpoints[first:] + self._fleet.endpoints[:first])
        return Victim(name, words, self.home, {"AIRUNNER_BROKER": endpoints, "AIRUNNER_TOKEN": token})

    def rage(self, seconds: float) -> None:
        """Do the next thing of the deck each time."""
        begun_s = time.monotonic()
        self._seconds = seconds
        hurt_s = begun_s + TICK_S
        while (now_s := time.monotonic()) < begun_s + seconds:
            while self._due and self._due[0][0] <= now_s:
                heapq.heappop(self._due)[2]()
            self._raise_the_dead()
            if now_s >= hurt_s:
                hurt_s = now_s + TICK_S
                self._hurt()
            self._twice = two_at_once(job_processes(self.home)) | self._twice
            jobs = sum(len(accepted(records)) for records in diaries(self.folder, *CLIENT_KINDS))
            self._tell(f"{now_s - begun_s:.0f} of {seconds:g} s, {jobs} jobs accepted, {self._hurts}")
            Wakeup().wait(LOOK_S)

    def drain(self) -> None:
        """Mend everything, let the users finish, and wait for what they asked for."""
        tell("mending and draining")
        deadline_s = time.monotonic() + DRAIN_S
        self._due.clear()
        self._fleet.mend_server()
        self._fleet.clock.set(0)
        for member in self._fleet.members:
            member.store.join()
            member.events.join()
        for victim in self._all:
            victim.mend()
        (self.folder / STOP).touch()
        anyio.run(self._drain, DRAIN_S)
        for user in self._users:
            self._note(user.ended(deadline_s - time.monotonic()))
        anyio.run(self._drain, max(0.0, deadline_s - time.monotonic()))  # what those asked at last
        self._raise_the_dead()

    async def _drain(self, within_s: float) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._supervise)
            await drain(self.cluster, within_s, self._tell)
            group.cancel_scope.cancel()

    async def _supervise(self) -> None:
        while True:
            self._raise_the_dead()
            with anyio.move_on_after(LOOK_S):
                await anyio.Event().wait()

    def judge(self) -> None:
        """Look at all that is left, while the brokers are there and then without them."""
        kept = anyio.run(judge, self.cluster, self._deaths, self.findings)
        self.findings.add(RESTARTED, lost_by(CALM, kept))
        parkers = diaries(self.folder, "parker")
        self.findings.add(UNANSWERED, (wrong for records in parkers for wrong in unanswered(records)))
        waited_ms = [waited_ms for records in parkers for waited_ms in answers(records).values()]
        self.findings.add("run twice at once", [f"{job_id}: attempts {both}" for job_id, both in self._twice.items()])
        for victim in [*self._agents, *self._calm, *self._fleet.members]:
            self._note(victim.terminate())
        left = [f"{one.pid} {one.command} of {one.job_id}" for one in job_processes(self.home)]
        self.findings.add("processes left behind", left)
        _until(lambda: not airunner_processes(self.home))  # commands of users that were killed may yet run
        self.findings.add("processes left behind", [command_of(pid) for pid in airunner_processes(self.home)])
        self.findings.note(self._hurts)
        self.findings.note(", ".join(f"{times} × {fault}" for fault, times in sorted(self._seen.items())))
        longest_s = max(waited_ms, default=0) / 1_000
        self.findings.note(f"{len(waited_ms)} parked requests were answered, each within {longest_s:.1f} s")
        if self._seconds >= ALL_SEEN_S:
            never = [fault for fault in [*self._faults, *RESULTS] if not self._seen[fault]]
            self.findings.add("faults never seen", never)

    def end(self) -> None:
        """Kill all that still runs."""
        for victim in self._all:
            victim.end()
        _until(lambda: not job_processes(self.home))  # that is their keepers' work
        for pid in [*airunner_processes(self.home), *(process.pid for process in job_processes(self.home))]:
            kill(pid)

    @property
    def _all(self) -> list[Victim]:
        return [*self._fleet.members, *self._agents, *self._calm, *self._users]

    @property
    def _hurts(self) -> str:
        kills, stops = (sum(one) for one in zip(*((victim.kills, victim.stops) for victim in self._all), strict=True))
        cuts: Counter[Cut] = sum((member.store.cuts for member in self._fleet.members), Counter())
        self._seen |= Counter(
            {
                "cut before COMMIT": cuts[Cut.BEFORE],
                "cut after COMMIT": cuts[Cut.AFTER],
                "broker fenced": self._fleet.count(FENCED),
                "broker adopted": self._fleet.count(ADOPTED),
            }
        )
        return (
            f"{kills} kills, {stops} stops, {self._fleet.kills} of PostgreSQL, {cuts.total()} cut in COMMIT, "
            f"{self._seen['broker adopted']} adoptions, {self._fleet.clock.steps} steps of a clock"
        )

    # --- what is done; each returns whether it could be ---

    def _hurt(self) -> None:
        """Do what is next in the deck and can be done now; what cannot waits for its turn."""
        if not self._deck:
            self._deck = self._random.sample(sorted(self._faults), len(self._faults))
        others = self._random.sample(sorted(self._faults), len(self._faults))  # where what is left has to wait
        for fault in [*self._deck, *others]:
            if self._faults[fault]():
                if fault in self._deck:
                    self._deck.remove(fault)
                with (self.folder / "faults").open("a") as file:
                    file.write(f"{time.strftime('%H:%M:%S')} {fault}\n")
                self._seen[fault] += not fault.startswith("cut")
                return

    def _kill(self, among: Sequence[Victim]) -> bool:
        if (victim := self._whole(among)) is None:
            return False
        victim.kill()
        self._note_death(victim, "kill")
        self._soon(RESTART_S, victim.mend)
        return True

    def _stop(self, among: Sequence[Victim], within_s: tuple[float, float]) -> bool:
        if (victim := self._whole(among)) is None:
            return False
        victim.stop()
        self._soon(within_s, victim.mend)
        return True

    def _stop_for_long(self) -> bool:
        if self._away or not self._stop(self._fleet.members, LONG_STOP_S):
            return False
        self._be_away(LONG_STOP_S[1])
        return True

    def _kill_server(self) -> bool:
        if self._fleet.down or self._away:  # nobody is adopted meanwhile
            return False
        self._fleet.kill_server()
        self._soon(DOWN_S, self._fleet.mend_server)
        return True

    def _cut(self, where: Cut) -> bool:
        if (member := self._whole(self._fleet.members)) is None:
            return False
        assert isinstance(member, Member)
        member.store.cut(where)
        return True

    def _part(self, *, store: bool, peers: bool) -> bool:
        """Part a broker; if from its peers, these do not hear one another either."""
        if self._away or (member := self._whole(self._fleet.members)) is None:
            return False
        assert isinstance(member, Member)
        links: list[PartLink] = [member.store] if store else []
        links += [other.events for other in self._fleet.members] if peers else []
        for link in links:
            link.part()
        parted_s = self._random.uniform(*PARTED_S)
        for link in links:
            self._later(time.monotonic() + parted_s, link.join)
        self._be_away(parted_s)
        return True

    def _step_clock(self) -> bool:
        member, clock = self._fleet.members[-1], self._fleet.clock
        if clock.ahead_ms or not member.whole or member.count("broker ready") <= member.kills:
            return False
        clock.set(self._random.choice([STEP_MS, -STEP_MS]))
        self._soon(STEPPED_S, lambda: clock.set(0))
        return True

    def _be_away(self, seconds: float) -> None:
        def is_back() -> None:
            self._away = False

        self._away = True
        self._later(time.monotonic() + seconds, is_back)

    def _whole(self, among: Sequence[Victim]) -> Victim | None:
        whole = [victim for victim in among if victim.whole]
        return self._random.choice(whole) if whole else None

    def _raise_the_dead(self) -> None:
        """As their supervisor would; that it has to is a finding, but for a broker that could not go on."""
        done = self._users if (self.folder / STOP).exists() else []
        for victim in self._all:
            if victim not in done and (died := victim.died()):
                if not (victim in self._fleet.members and any(words in died for words in SUPERVISED)):
                    self._note(died)
                self._note_death(victim, died)
                victim.mend()

    def _note_death(self, victim: Victim, why: str) -> None:
        self._deaths.append(Killed(at_ms=wall_ms(), machine=victim.name, why=why))

    def _soon(self, within_s: tuple[float, float], act: Callable[[], None]) -> None:
        self._later(time.monotonic() + self._random.uniform(*within_s), act)

    def _later(self, at_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at_s, next(self._numbers), act))

    def _note(self, wrong: str | None) -> None:
        if wrong:
            self.findings.add("ended by themselves", [wrong])

    def _tell(self, line: str) -> None:
        """Not too often."""
        if time.monotonic() - self._told_s >= TELL_S:
            self._told_s = time.monotonic()
            tell(line)


def _until(done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + SWEEP_S
    while not done() and time.monotonic() < deadline_s:
        Wakeup().wait(LOOK_S)


def main() -> int:
    """Run it, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.chaos_ha", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    tell(f"chaos of {given.seconds:g} s, seed {given.seed}")

    def run(folder: Path, ends: ExitStack) -> bool:
        chaos = ChaosHa(folder, given.seed, ends)
        ends.callback(chaos.end)
        chaos.start()
        chaos.rage(given.seconds)
        chaos.drain()
        chaos.judge()
        for line in chaos.findings.lines():
            tell(line)
        return chaos.findings.clean

    return run_in_folder("chaos-ha", run)


if __name__ == "__main__":
    sys.exit(main())
