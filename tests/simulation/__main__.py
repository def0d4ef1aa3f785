"""`python -m tests.simulation`: runs seeds, and repeats one exactly.

Each seed runs in a fork of this process, which ends with it: what one run leaves in memory no other finds, a run
that hangs can be ended, and nobody has to tidy up a world whose machines were killed.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from random import Random
from typing import Final, NoReturn

from airunner.agent.launcher.child.linux import call_me_when_my_parent_dies
from tests.simulation.history import pack, unpack
from tests.simulation.machine import run_virtual
from tests.simulation.mutants import FLEET_SEEDS_MAX, MUTANTS, SEEDS_MAX
from tests.simulation.oracle import check
from tests.simulation.world import World

SEED_WALL_S_MAX: Final = 240.0  # of real time; a run takes about one, with several brokers two, on an idle machine
IDLE_SHARE_MAX: Final = 0.05
TRACE_CHARS_MAX: Final = 600
REACHED_SEEDS: Final = 100  # so many have to reach all of these between them
REACHED: Final = (
    "CompleteJob refused with stale-token",
    "EnqueueJob asked again after it was answered",
    "DequeueJob asked again after it was answered",
    "PublishJobEvents asked again after it was answered",
    "CancelJob asked again after it was answered",
    "a request of a killed client asked again",
    "a monitor resumed in mid-stream",
    "a running job was cancelled",
    "a command got a standard input",
    "a job expired",
    "ReadJobStdin asked again after it was answered",
    "an agent woke after its leases",
    "late events refused",
    "a reader was stopped",
    "a machine slept beyond its leases",
    "a machine refused to start a process",
    "a message was long on a slow link",
    "an agent's disk was full",
    "a request found little room on the broker's disk",
    "a full disk kept what ends or keeps something",
    "processes ended by their keeper's deadline",
    "a power cut dropped a write",
    "a power cut tore a write",
    "a write failed",
    "a write found no space",
    "the broker crashed inside a write",
    "a batch was decided on a job that had moved",
    "a batch was compressed",
    "a hint was lost",
    "the server crashed",
    "the server failed over",
    "a failover lost what nobody was told",
    "the server recovered what its standby had not got",
    "an idle transaction was ended",
    "a commit was unsure",
    "a broker adopted another's jobs",
    "a broker that was taken for dead was fenced",
)
FORKS: Final = get_context("fork")
STORES: Final = ("dicts", "sqlite", "shared", "dynamodb")
HASHING: Final = {"PYTHONHASHSEED": "0"}  # the order of sets is part of what a seed draws


@dataclass
class Verdict:
    """What became of one seed."""

    seed: int
    violations: list[str] = field(default_factory=list)  # of the oracle's laws
    problems: list[str] = field(default_factory=list)  # these, and whatever else makes the run fail
    idle: bool = False  # too little was done for the run to count
    rare: Counter[str] = field(default_factory=Counter)
    work: Counter[str] = field(default_factory=Counter)
    digest: str = ""
    history: bytes = b""  # packed, where it is kept
    cpu_s: float = 0.0


def run_seed(seed: int, store: str, folder: Path, writer: Connection, *, keep: bool) -> None:
    """Run one world; its verdict is written, and this process is over."""
    call_me_when_my_parent_dies(signal.SIGKILL)
    faulthandler.dump_traceback_later(SEED_WALL_S_MAX, exit=True)
    folder.mkdir()
    gc.disable()  # a run is short, and its memory goes with it

    def over(world: World, error: BaseException | None) -> NoReturn:
        writer.send(judged(world, seed, error, keep=keep))
        os._exit(0)

    world = World(seed, STORES[seed % len(STORES)] if store == "all" else store, folder, over)
    try:
        run_virtual(world.run, Random(seed))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is this run's verdict
        over(world, error)


def judged(world: World, seed: int, error: BaseException | None, *, keep: bool) -> Verdict:
    """What the oracle says of a run, unless something else went wrong with it."""
    history = world.recorder.history
    violations = [str(violation) for violation in check(history)] if error is None else []
    failed = ["".join(traceback.format_exception(error))] if error is not None else []
    return Verdict(
        seed=seed,
        violations=violations,
        problems=[*violations, *failed],
        idle=world.idle,
        rare=world.recorder.rare,
        work=Counter(type(record).__name__ for record in history),
        digest=history.digest(),
        history=pack(history) if keep else b"",
        cpu_s=time.process_time(),
    )


def shortened(record: object) -> str:
    """One line of a trace."""
    text = str(record)
    return text if len(text) <= TRACE_CHARS_MAX else f"{text[:TRACE_CHARS_MAX]}…"


def run_all(
    seeds: Sequence[int], store: str, jobs: int, *, keep: bool = False, until: Callable[[Verdict], bool]
) -> list[Verdict]:
    """Run seeds in their order, so many at once; begins no other once a verdict is what is looked for."""
    verdicts: list[Verdict] = []
    left = list(reversed(seeds))
    running: dict[Connection, tuple[int, ForkProcess]] = {}
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="airunner-sim-", dir=memory) as root:
        while left or running:
            while left and len(running) < jobs:
                seed = left.pop()
                reader, writer = Pipe(duplex=False)
                arguments = (seed, store, Path(root, str(seed)), writer)
                run = FORKS.Process(target=run_seed, args=arguments, kwargs={"keep": keep})
                run.start()
                writer.close()
                running[reader] = seed, run
            for reader in [one for one in wait(list(running)) if isinstance(one, Connection)]:
                seed, run = running.pop(reader)
                verdict = Verdict(seed, problems=[f"no end within {SEED_WALL_S_MAX:g} s of real time"])
                with reader, suppress(EOFError):
                    verdict = reader.recv()
                run.join()
                shutil.rmtree(Path(root, str(seed)))
                verdicts.append(verdict)
                if len(verdicts) % 100 == 0:
                    print(f"{len(verdicts)} of {len(seeds)} seeds", file=sys.stderr, flush=True)
                if until(verdict):
                    left.clear()
    return sorted(verdicts, key=lambda verdict: verdict.seed)


def run_mutants(names: Sequence[str], jobs: int, *, search: bool) -> int:
    """The exit code: 0 when every mutant is found out. So many run at once."""
    code = running = 0
    left = list(reversed(names))
    while left or running:
        if left and running < jobs:
            running += 1
            name = left.pop()
            if os.fork() == 0:
                call_me_when_my_parent_dies(signal.SIGKILL)
                os._exit(run_mutant(name, search=search))
        else:
            running -= 1
            code |= os.waitstatus_to_exitcode(os.wait()[1])
    return code


def run_mutant(name: str, *, search: bool) -> int:
    """Run the seed that showed the lie before, then, in a search, the others until one shows it."""
    lie, store, shown = MUTANTS[name]
    lie()
    seeds = range(FLEET_SEEDS_MAX if store in ("shared", "dynamodb") else SEEDS_MAX)
    order = [shown, *(seed for seed in seeds if search and seed != shown)]
    verdicts = run_all(order, store, 1, until=lambda verdict: bool(verdict.violations))
    found = next((verdict for verdict in verdicts if verdict.violations), None)
    if found is None:
        where = f"within {len(seeds)} seeds" if search else f"by seed {shown}: let `make mutants` search for another"
        print(f"{name}: NOT FOUND {where}", flush=True)
        return 1
    print(f"{name}: found by seed {found.seed}, after {len(verdicts)} seeds: {found.violations[0]}", flush=True)
    return 0


def main() -> int:
    """The exit code: 0 when every law held in every seed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0:100", help="FIRST:BEYOND")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--store", choices=[*STORES, "all"], default="all")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="write the history of each seed")
    parser.add_argument("--mutants", action="store_true", help="show that lies are found out")
    parser.add_argument("--only", choices=list(MUTANTS), help="only this lie")
    parser.add_argument("--search", action="store_true", help="where a lie's own seed does not show it, try others")
    given = parser.parse_args()
    if given.mutants:
        return run_mutants([given.only] if given.only else list(MUTANTS), given.jobs, search=given.search)
    first, beyond = (given.seed, given.seed + 1) if given.seed is not None else map(int, given.seeds.split(":"))
    verdicts = run_all(
        range(first, beyond),
        given.store,
        given.jobs,
        keep=given.trace or given.record is not None,
        until=lambda verdict: bool(verdict.problems),
    )
    for verdict in verdicts:
        if given.record is not None:
            (given.record / str(verdict.seed)).write_bytes(verdict.history)
        if given.trace:
            print(*map(shortened, unpack(verdict.history)), sep="\n")
    failed = [verdict for verdict in verdicts if verdict.problems]
    for verdict in failed:
        print(f"seed {verdict.seed} fails:")
        for problem in verdict.problems[:20]:
            print(f"  {problem}")
        print(f"  repeat it exactly: python -m tests.simulation --seed {verdict.seed} --store {given.store} --trace")
    report(verdicts)
    idle = [verdict.seed for verdict in verdicts if verdict.idle]
    if len(idle) > max(1, IDLE_SHARE_MAX * len(verdicts)):
        print(f"too many seeds did too little to count: {idle}")
        return 1
    reaching = given.store == "all" and len(verdicts) >= REACHED_SEEDS  # some states are those of one kind of store
    unreached = [state for state in REACHED if reaching and not any(state in verdict.rare for verdict in verdicts)]
    for state in unreached:
        print(f"never reached, so nothing is shown of it: {state}")
    return 1 if failed or unreached else 0


def report(verdicts: list[Verdict]) -> None:
    """What was done and what was reached."""
    work = sum((verdict.work for verdict in verdicts), Counter[str]())
    rare = sum((verdict.rare for verdict in verdicts), Counter[str]())
    idle = sum(verdict.idle for verdict in verdicts)
    cpu_s = sum(verdict.cpu_s for verdict in verdicts)
    print(f"{len(verdicts)} seeds, {idle} of them invalid, {cpu_s:.1f} s of processor time")
    print("work: " + ", ".join(f"{count} {name}" for name, count in sorted(work.items())))
    for state, count in sorted(rare.items()):
        print(f"  {count:6} {state}")
    if len(verdicts) == 1:
        print(f"digest {verdicts[0].digest}")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != HASHING["PYTHONHASHSEED"]:
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], {**os.environ, **HASHING})
    sys.exit(main())
