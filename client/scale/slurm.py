"""Slurm as a cluster: a batch job for each agent, made from a batch script.

Slurm has no unique names. Three things together make two agents of one name impossible:
- a lock on this machine, which `sbatch` inherits: while a killed scaler's `sbatch` still runs, no other scaler begins;
- `squeue` before each look: a name whose job waits or runs is not used;
- `--dependency=singleton`, which Slurm itself keeps: a job waits until all jobs of its name and user have ended. So
  even scalers on two machines never have two agents of one name run at once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Final

import anyio

from airunner.certs.secretfile import make_folder
from airunner.client.scale.cluster import ClusterAway, Unit, UnitState
from airunner.client.scale.demand import is_unit_of, unit_name
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import AGENT_NAME_VARIABLE

COMMAND_S: Final = 60.0  # for one command of Slurm, whose own limit for a message is 10 s by default
LOCK_S: Final = 1.0  # between two tries to take the lock
LOCKS_FOLDER: Final = "scale"  # in the home
FORMAT: Final = "%i %T %j"  # id, state, name: `squeue` prints each in full
FIELDS: Final = 3
ENDED: Final = {"COMPLETED", "CANCELLED", "DEADLINE", "PREEMPTED", "REVOKED", "TIMEOUT"}
FAILED: Final = {"BOOT_FAIL", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
KEPT: Final = {"SLURM_CONF", "SLURM_JWT"}  # of the variables that Slurm sets for its jobs: this may run in one
OWN: Final = ("AIRUNNER_", "JWT_", "SLURM_")  # variables of this process that are not for its agents


class SlurmJobs:
    """Batch jobs that `scaler` submits; `lock` is its open file, locked by this process."""

    def __init__(self, script: Path, scaler: str, environ: Mapping[str, str], lock: int) -> None:
        self._script = script.absolute()
        self._scaler = scaler
        self._environ = {name: value for name, value in environ.items() if name in KEPT or not name.startswith(OWN)}
        self._lock = lock

    async def check(self) -> None:
        """Check that Slurm would accept the script."""
        await self._call("sbatch", "--test-only", *self._options(unit_name(self._scaler, 0)))

    async def units(self) -> Sequence[Unit]:
        """List the units: of each name the job that has not ended, or the last one."""
        listed = await self._call("squeue", "--me", "--noheader", "--states=all", f"--format={FORMAT}")
        jobs = [line.split(maxsplit=2) for line in listed.splitlines()]
        units = [
            Unit(job[2], job[0], _state(job[1]), f"Slurm job {job[0]} is {job[1]}")
            for job in jobs
            if len(job) == FIELDS and is_unit_of(self._scaler, job[2])
        ]
        units.sort(key=lambda unit: (unit.state is UnitState.LIVE, _number(unit.key)))
        return list({unit.name: unit for unit in units}.values())

    async def start(self, name: str, ended: Unit | None) -> bool:
        """Submit the script under this name."""
        del ended  # its name is free
        await self._call("sbatch", "--parsable", *self._options(name), name=name)
        return True

    async def watch(self, changed: Callable[[], object]) -> None:
        """Return: Slurm reports no changes."""

    def _options(self, name: str) -> tuple[str, ...]:
        return (f"--job-name={name}", "--dependency=singleton", str(self._script))

    async def _call(self, *argv: str, name: str = "") -> str:
        """Run a command of Slurm and return what it prints. Raises `ClusterAway`."""
        environ = {**self._environ, AGENT_NAME_VARIABLE: name} if name else self._environ
        try:
            with anyio.fail_after(COMMAND_S):
                done = await anyio.run_process(
                    argv, stdin=DEVNULL, stderr=PIPE, check=False, env=environ, pass_fds=[self._lock]
                )
        except FileNotFoundError as error:
            raise OperatorError(f"there is no {argv[0]} on the PATH: run this where Slurm's commands are") from error
        except TimeoutError as error:
            raise ClusterAway(f"{argv[0]} has not ended in {COMMAND_S:g} s") from error
        if done.returncode != 0:
            words = " ".join(done.stderr.decode(errors="replace").split())
            raise ClusterAway(f"{argv[0]} exited with {done.returncode}: {words}")
        return done.stdout.decode(errors="replace")


async def lock_scaler(home: Path, scaler: str, report: Callable[[str], None]) -> int:
    """Lock a scaler's name on this machine, and return the descriptor of the lock; it waits for another scaler."""
    folder = home / LOCKS_FOLDER
    make_folder(folder)
    lock = os.open(folder / f"{scaler}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    reported = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not reported:
                report(f"waiting for another scaler {scaler} of this machine, or what it has started, to end")
            reported = True
            await anyio.sleep(LOCK_S)
        else:
            return lock


def read_script(path: Path) -> bool:
    """Check a batch script, and return whether it names an option that ends an agent by itself.

    Raises `OperatorError`: it cannot be read, or is no script.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise OperatorError(f"--script {path} cannot be read: {error.strerror}") from error
    if not text.startswith(b"#!"):
        raise OperatorError(f"--script {path}: a batch script begins with #! and the path of a shell")
    return b"--disconnect-after-" in text


def _state(word: str) -> UnitState:
    if word in FAILED:
        return UnitState.FAILED
    return UnitState.DONE if word in ENDED else UnitState.LIVE


def _number(key: str) -> int:
    """Return the number of a Slurm job's id, which rises with each."""
    return int("".join(filter(str.isdecimal, key.partition("_")[0])) or 0)
