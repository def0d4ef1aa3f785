"""A live broker under a flood of nonsense: `python -m tests.fuzz [--requests N] [--streams N] [--seed N]`.

One process sends mutated requests over CURVE (`dealing`), one raw byte streams over TCP (`knocking`), and meanwhile a
well-formed client is served (`witness`). It exits with 1, keeps its folder, and says how to repeat it, unless the
broker lived through it, answered what it owes, grew no more than it may and kept all that it acknowledged. The seed
draws what is sent, for each process by itself; how the two meet is the machine's.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from random import SystemRandom
from typing import Final

import zmq

from tests.acceptance.chaos_processes import run_in_folder
from tests.acceptance.running import RunningBroker, airunner
from tests.fuzz.tally import Flood
from tests.fuzz.vitals import Vitals
from tests.fuzz.witness import Witness

COUNT: Final = 1_000_000
SEEDS: Final = 10**6
ROUND_S: Final = 0.02  # between two rounds of the witness: it is to be served, and not to be the load
TOLD_EVERY: Final = 500  # rounds
UNBOUNDED: Final = "1000000"  # a second, as an operator would set it who wants no bound: it is not what is tried here
LESSER: Final = ("submit", "read", "work", "admin")


class Fuzz:
    """One run."""

    def __init__(self, ends: ExitStack, folder: Path, requests: int, streams: int, seed: int) -> None:
        self.faults: list[str] = []
        self._home = folder / "home"
        airunner(self._home, "certs", "init")
        bounds = ("--tenant-requests", UNBOUNDED, "--machine-connections", UNBOUNDED)
        self._broker = RunningBroker(self._home, None, *bounds)
        ends.callback(self._broker.kill)
        flooding = self._machine(folder / "flooding")
        self._witness = Witness(self._broker, self._token("witness"))
        ends.callback(self._witness.close)
        self._witness.come_anew()  # before the vitals: what the first of each kind makes the broker load is there
        self._vitals = Vitals(self._broker)
        tokens = [self._token("fuzz"), *(self._token("fuzz", role) for role in LESSER), self._token("other")]
        deal = (self._broker.requests, str(flooding), str(requests), str(seed), *tokens)
        knock = (str(flooding), str(streams), str(seed), self._broker.requests, self._broker.events)
        self._total = requests + streams
        self._floods = [
            Flood("requests", self._home, "tests.fuzz.dealing", *deal),
            Flood("streams", self._home, "tests.fuzz.knocking", *knock),
        ]
        for flood in self._floods:
            ends.callback(flood.end)

    def run(self) -> None:
        """Until both floods have ended, or one of them cannot go on; the witness is served all the while."""
        rounds = 0
        try:
            while self._flooded():
                assert self._broker.process.running, "nobody is there"
                self._witness.round()
                self._vitals.look(self._share)
                rounds += 1
                if rounds % TOLD_EVERY == 1:
                    _say(f"{self._share:.0%}: {self._line}")
            self._witness.come_anew()
            self.faults += self._witness.look_back()
            self._vitals.look(self._share)
        except (AssertionError, zmq.Again) as error:
            self.faults.append(f"the well-formed client: {error!r}")

    def judge(self) -> None:
        """What became of the broker; and all that was counted."""
        self.faults += self._vitals.faults()
        for flood in self._floods:
            tally = flood.tally
            _say(
                f"{flood.name}: {tally.sent:,} in {tally.seconds:.0f} s, {tally.sent / max(tally.seconds, 0.01):,.0f}/s"
            )
            for outcome, count in sorted(tally.outcomes.items(), key=lambda pair: -pair[1]):
                _say(f"    {count:>9,} {outcome}")
        if self._broker.process.running:
            _say(f"broker: {', '.join(f'{count:,} {name}' for name, count in self._vitals.counted().items())}")
            self.faults += self._vitals.stop()
        _say(self._line)

    def _flooded(self) -> bool:
        """Whether the floods go on; returns when the next round is due."""
        running = [flood for flood in self._floods if flood.running()]
        faults = [fault for flood in self._floods if flood not in running and (fault := flood.fault())]
        if running and not faults:
            running[0].running(ROUND_S)
            return True
        self.faults += faults
        return False

    @property
    def _share(self) -> float:
        return sum(flood.tally.sent for flood in self._floods) / self._total

    @property
    def _line(self) -> str:
        seen, vitals = self._witness, self._vitals
        memory = (vitals.first_mib, vitals.warm_mib, vitals.highest_mib, vitals.last_mib)
        return (
            f"{seen.answered:,} well-formed requests answered, the slowest in {seen.slowest_s:.2f} s; "
            "memory {:.1f} MiB at first, {:.1f} warm, {:.1f} at most, {:.1f} at last".format(*memory)
        )

    def _machine(self, home: Path) -> Path:
        """The home of the machine that floods: the well-formed client is on another."""
        airunner(self._home, "certs", "add", home.name, "--role", "agent,client", "--any-queue")
        keys = home.with_suffix(".keys")
        airunner(self._home, "certs", "export", home.name, "--output", str(keys))
        airunner(home, "certs", "import", str(keys))
        return home

    def _token(self, tenant: str, *roles: str) -> str:
        options = ["--role", ",".join(roles)] if roles else []
        return airunner(self._home, "token", "--subject", "fuzz", "--tenant", tenant, "--ttl", "1d", *options).strip()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=COUNT)
    parser.add_argument("--streams", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(SEEDS))
    given = parser.parse_args()
    repeat = f"python -m tests.fuzz --requests {given.requests} --streams {given.streams} --seed {given.seed}"
    _say(repeat)

    def run(folder: Path, ends: ExitStack) -> bool:
        fuzz = Fuzz(ends, folder, given.requests, given.streams, given.seed)
        fuzz.run()
        fuzz.judge()
        for fault in fuzz.faults:
            _say(f"FAULT {fault}")
        _say(f"repeat it: {repeat}" if fuzz.faults else "no fault")
        return not fuzz.faults

    return run_in_folder("fuzz", run)


if __name__ == "__main__":
    sys.exit(main())
