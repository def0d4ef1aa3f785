"""Several brokers, really killed: `python -m tests.acceptance.chaos_ha --seconds 600 [--seed N]`.

Three brokers share a PostgreSQL server; four agents, six clients, four monitors and three parkers work. Every second
something of this happens, in a drawn order in which each comes round: PostgreSQL gets SIGKILL or SIGSTOP, whole; a
broker, an agent or a user gets SIGKILL, or SIGSTOP for seconds; a broker gets SIGSTOP for longer than it takes the
others to adopt its jobs; the connection of a broker to PostgreSQL is cut in COMMIT, before the server has it or after;
a broker is parted from PostgreSQL, from the other brokers, or from both, or all from one another; the clock of one is
set by three hours. One agent is hurt by nothing of that but through its brokers.

Then everything is mended and drained, and judged as in `chaos`. It exits with 1, and keeps its folder, unless nothing
was lost, done twice, holed, run twice at once or left behind, the agent that nobody hurt has lost no job, and everybody
who asked for jobs was answered in time. The seed draws the jobs, who is hurt, how and for how long; the rest is the
machine's. However it ends, it ends every process that it began.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from airunner.certs.home import Home
from airunner.certs.principal import ALL_ROLES
from airunner.certs.tokenkeys import load_signing_key
from airunner.certs.tokens import TokenSigner
from tests.acceptance import chaos_driver
from tests.acceptance.chaos_driver import VISIBILITY_S, Driver
from tests.acceptance.chaos_fleet import ADOPTED, FENCED, SUPERVISED, Fleet, Member
from tests.acceptance.chaos_judge import Cluster, Kept
from tests.acceptance.chaos_processes import Victim
from tests.acceptance.chaos_users import diaries
from tests.acceptance.chaos_waits import answers, lost_by, unanswered
from tests.acceptance.failovers import tell
from tests.acceptance.partlink import Cut, PartLink

BROKERS: Final = 3
AGENTS: Final = 3
CALM: Final = "calm"  # the agent that nobody hurts
CALM_S: Final = 120  # its visibility timeout: no fault of a broker lasts as long
USERS: Final = (*("client", "shell") * 3, *("monitor",) * 4, *("parker",) * 3)
STEP_MS: Final = 3 * 3_600_000
LONG_STOP_S: Final = (16.0, 22.0)  # a broker is dead after 10 s of the others' time, of which they may lose some
PARTED_S: Final = (2.0, 16.0)
STEPPED_S: Final = (3.0, 12.0)
DOWN_S: Final = (0.2, 4.0)
RESULTS_SEEN_S: Final = 300.0  # a broker that was stopped for long may be killed before it finds itself adopted
RESULTS: Final = ("broker fenced", "broker adopted")
RESTARTED: Final = "jobs lost by restarts"
UNANSWERED: Final = "parked and unanswered"


class ChaosHa(Driver):
    """The brokers, agents and users, and what is done to them."""

    tick_s = 1.5

    def __init__(self, folder: Path, seed: int, ends: ExitStack) -> None:
        super().__init__(folder, seed, RESTARTED, UNANSWERED)
        self._fleet = Fleet(folder, self.home, BROKERS, ends)
        self._brokers += self._fleet.members
        self._stopped = ExitStack()  # the server is, while this is open
        self._deck: list[str] = []
        self._away = False  # a broker is, for longer than a moment: only one at a time
        self._seen: Counter[str] = Counter()
        self._faults: dict[str, Callable[[], bool]] = {
            "broker killed": lambda: self._one(self._kill, self._brokers),
            "broker stopped": lambda: self._one(self._stop, self._brokers),
            "broker stopped for long": self._stop_for_long,
            "agent killed": lambda: self._one(self._kill, self._agents),
            "agent stopped": lambda: self._one(self._stop, self._agents),
            "user killed": lambda: self._one(self._kill, self._users[: -USERS.count("parker")]),
            "user stopped": lambda: self._one(self._stop, self._users[: -USERS.count("parker")]),
            "PostgreSQL killed": self._kill_server,
            "PostgreSQL stopped": self._stop_server,
            "cut before COMMIT": lambda: self._cut(Cut.BEFORE),
            "cut after COMMIT": lambda: self._cut(Cut.AFTER),
            "parted from PostgreSQL": lambda: self._part(lambda member: [_parted(member.store)]),
            "parted from peers": lambda: self._part(self._fleet.part_bus),
            "parted from both": lambda: self._part(
                lambda member: [_parted(member.store), *self._fleet.part_bus(member)]
            ),
            "parted all": lambda: self._part(lambda _: self._fleet.part_bus(None)),
            **({} if self._fleet.clock.why_not else {"clock set": self._step_clock}),
        }

    @property
    def cluster(self) -> Cluster:
        endpoints = " ".join(self._fleet.endpoints)
        return Cluster(self.folder, self.home, endpoints, self._begun_ms, VISIBILITY_S * 1_000, STEP_MS)

    def start(self) -> None:
        """Start agents and users; their tokens hold whatever a broker's clock shows."""
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

    def _mend(self) -> None:
        self._stopped.close()
        self._fleet.mend_server()
        self._fleet.clock.set(0)
        for member in self._fleet.members:
            member.store.join()
            member.events.join()

    def _judge_more(self, kept: Kept) -> None:
        self.findings.add(RESTARTED, lost_by(CALM, kept))
        parkers = diaries(self.folder, "parker")
        self.findings.add(UNANSWERED, (wrong for records in parkers for wrong in unanswered(records)))
        waited_ms = [waited_ms for records in parkers for waited_ms in answers(records).values()]
        self.findings.note(", ".join(f"{times} × {fault}" for fault, times in sorted(self._seen.items())))
        longest_s = max(waited_ms, default=0) / 1_000
        self.findings.note(f"{len(waited_ms)} parked requests were answered, each within {longest_s:.1f} s")
        self._judge_seen([fault for fault in self._faults if not self._seen[fault]])
        self._judge_seen([result for result in RESULTS if not self._seen[result]], RESULTS_SEEN_S)

    def _is_expected(self, victim: Victim, died: str) -> bool:
        """Whether it is a broker that could not go on."""
        return victim in self._brokers and any(words in died for words in SUPERVISED)

    @property
    def _hurts(self) -> str:
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
            f"{self._signals()}, {self._fleet.kills} of PostgreSQL, {cuts.total()} cut in COMMIT, "
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

    def _one(self, hurt: Callable[[Victim], None], among: Sequence[Victim]) -> bool:
        if (victim := self._whole(among)) is None:
            return False
        hurt(victim)
        return True

    def _stop_for_long(self) -> bool:
        if self._away or not self._one(lambda broker: self._stop(broker, LONG_STOP_S), self._brokers):
            return False
        self._be_away(LONG_STOP_S[1])
        return True

    def _kill_server(self) -> bool:
        if self._fleet.down or self._away:  # nobody is adopted meanwhile
            return False
        self._fleet.kill_server()
        self._soon(DOWN_S, self._fleet.mend_server)
        return True

    def _stop_server(self) -> bool:
        if self._fleet.down or self._away:
            return False
        self._stopped.enter_context(self._fleet.server.stopped())
        stopped_s = self._random.uniform(*PARTED_S)
        self._later(time.monotonic() + stopped_s, self._stopped.close)
        self._be_away(stopped_s)
        return True

    def _cut(self, where: Cut) -> bool:
        if (member := self._whole(self._fleet.members)) is None:
            return False
        assert isinstance(member, Member)
        member.store.cut(where)
        return True

    def _part(self, part: Callable[[Member], list[PartLink]]) -> bool:
        if self._away or (member := self._whole(self._fleet.members)) is None:
            return False
        assert isinstance(member, Member)
        parted_s = self._random.uniform(*PARTED_S)
        for link in part(member):
            self._later(time.monotonic() + parted_s, link.join)
        self._be_away(parted_s)
        return True

    def _step_clock(self) -> bool:
        member, clock = self._fleet.members[-1], self._fleet.clock
        if clock.ahead_ms or not member.whole or not member.has_said("broker ready"):
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


def _parted(link: PartLink) -> PartLink:
    link.part()
    return link


if __name__ == "__main__":
    sys.exit(chaos_driver.main("chaos_ha", __doc__, ChaosHa))
