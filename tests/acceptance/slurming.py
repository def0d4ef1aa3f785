"""A Slurm of one node for tests: real daemons of their own, on free ports, in a scratch folder with a short path."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.acceptance.running import stop
from tests.ports import free_ports
from tests.postgresql.serving import missing

DAEMONS: Final = ("munged", "slurmctld", "slurmd")
ENDING: Final = ("setpriv", "--pdeathsig", "KILL")  # however the tests end, what they have started ends too
CPUS: Final = 16  # more agents than that wait
CONFIGURATION: Final = """
ClusterName=scratch
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={control}
SlurmdPort={node}
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=test Nodes={host} Default=YES State=UP
"""
# A wrapper of a command counts its calls. At the call CUT_AT it kills its parent: instead of the command, during it, or
# after it.
WRAPPER: Final = """#!/bin/sh
echo {name} >> "$CALLS"
if [ "$(wc -l < "$CALLS")" = "$CUT_AT" ]; then
    [ "$CUT" = after ] && {command} "$@"
    kill -9 "$PPID"
    [ "$CUT" = during ] && sleep 0.3 && exec {command} "$@"
    exit
fi
exec {command} "$@"
"""


class Slurm:
    """A running Slurm; `environ` is what its commands need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *argv: str | Path) -> str:
        """What a command of Slurm prints; it has to succeed."""
        environ = {**os.environ, **self.environ}
        return subprocess.run(argv, check=True, text=True, stdout=subprocess.PIPE, env=environ).stdout

    def script(self, *lines: str) -> Path:
        """A batch script."""
        path = self.folder / "agent.sh"
        path.write_text("\n".join(("#!/bin/sh", "#SBATCH --output=/dev/null", *lines, "")))
        return path

    def wait_until_empty(self) -> None:
        """Wait until no other job runs: this one needs the whole node."""
        self.run("sbatch", "--wait", "--exclusive", "--job-name=last", self.script("exit"))

    def jobs(self, *options: str) -> Sequence[str]:
        """The names of all jobs that were ever submitted, but that of `wait_until_empty`."""
        names = self.run("squeue", "--noheader", "--format=%j", "--states=all", *options).split()
        return [name for name in names if name != "last"]

    def cutting(self, at: int, cut: str) -> dict[str, str]:
        """Variables of a scaler that is killed at a call of a command of Slurm."""
        (self.folder / "calls").write_text("")
        for name in ("sbatch", "squeue"):
            wrapper = self.folder / "bin" / name
            wrapper.write_text(WRAPPER.format(name=name, command=shutil.which(name)))
            wrapper.chmod(0o700)
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {**self.environ, "PATH": path, "CALLS": str(self.folder / "calls"), "CUT_AT": str(at), "CUT": cut}


@contextmanager
def running_slurm() -> Iterator[Slurm]:
    """A Slurm while the block runs, whose node takes jobs."""
    if any(shutil.which(program) is None for program in (*DAEMONS, "sbatch")):
        missing("Slurm", "install Debian's slurmctld, slurmd, slurm-client and munge")
    with tempfile.TemporaryDirectory(prefix="ar-slurm-", dir="/tmp") as name, ExitStack() as daemons:
        folder = Path(name)
        for inner in ("state", "spool", "bin"):
            (folder / inner).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        host = socket.gethostname().split(".")[0]
        control, node = free_ports(2)
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                folder=folder, host=host, user=getpass.getuser(), control=control, node=node, cpus=CPUS
            )
        )
        slurm = Slurm(folder)
        munge = [f"--{option}={folder}/munge.{option}" for option in ("socket", "pid-file", "log-file", "seed-file")]
        munge[0] = f"--socket={folder}/munge.sock"
        _start(daemons, slurm, "munged", "--foreground", "--force", f"--key-file={key}", *munge, ready="work threads")
        _start(daemons, slurm, "slurmctld", "-D", "-i", ready="Running as primary controller")
        _start(daemons, slurm, "slurmd", "-D", ready="slurmd started on")
        try:
            yield slurm
        finally:
            slurm.run("scancel", "--me", "--signal=KILL")


def _start(daemons: ExitStack, slurm: Slurm, *command: str, ready: str) -> None:
    """Start a daemon, and wait until it has said that it is ready."""
    environ = {**os.environ, **slurm.environ}
    log = slurm.folder / f"{command[0]}.log"
    process = daemons.enter_context(
        subprocess.Popen(
            [*ENDING, *command],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line.decode(errors="replace"))
        if ready in said[-1]:
            break
    else:
        raise AssertionError(f"{command[0]} has ended: {''.join(said)}")
    # What it says from now on goes to a file, so that no pipe is full.
    daemons.enter_context(subprocess.Popen(["tee", log], stdin=process.stderr, stdout=subprocess.DEVNULL))
    daemons.callback(stop, process)
