"""The processes of a chaos run: those that are hurt and started again, and those that agents start for jobs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from tests.acceptance.running import REPOSITORY, environment

END_S: Final = 30.0
LAST_WORDS_BYTES: Final = 400
ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_INTERRUPTED: Final = 130


class Victim:
    """One process of the cluster, and how it is started again."""

    def __init__(self, name: str, arguments: Sequence[str], home: Path, more: Mapping[str, str]) -> None:
        self.name = name
        self.stopped = False
        self.killed = False  # and not yet started again
        self.kills = 0
        self.stops = 0
        self._arguments = arguments
        self._environ = environment(home, more)
        self._log = home.parent / f"{name}.log"
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def whole(self) -> bool:
        """Nobody has hurt it, or it has got over it."""
        return self.alive and not self.stopped

    def kill(self) -> None:
        self.kills += 1
        self.killed = True
        self.stopped = False
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self.stops += 1
        self.stopped = True
        self._process.send_signal(signal.SIGSTOP)

    def mend(self) -> None:
        """Awake and running, whatever was done to it."""
        if self.stopped:
            self._process.send_signal(signal.SIGCONT)
        self.stopped = False
        if not self.alive:
            self._process = self._start()
        self.killed = False

    def died(self) -> str | None:
        """How it ended, where that was not our doing."""
        return None if self.alive or self.killed else f"{self.name} {self._told()}"

    def ended(self, within_s: float) -> str | None:
        """What is wrong with the end that it was to come to by itself."""
        try:
            code = self._process.wait(max(0.0, within_s))
        except subprocess.TimeoutExpired:
            return f"{self.name} goes on and on: {self._last_words()}"
        return f"{self.name} {self._told()}" if code else None

    def terminate(self) -> str | None:
        """SIGTERM, as an operator would; what is wrong with how it obeyed."""
        self._process.terminate()
        wrong = self.ended(END_S)
        self.end()
        return wrong

    def end(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def count(self, words: str) -> int:
        """How often it has said them."""
        return self._log.read_bytes().count(words.encode())

    def has_said(self, words: str) -> bool:
        """Whether it has said them since it was started last."""
        return words.encode() in self._log.read_bytes()[self._said_bytes :]

    def _told(self) -> str:
        return f"exited with {self._process.returncode}: {self._last_words()}"

    def _last_words(self) -> str:
        return self._log.read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace").replace("\n", " | ")

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            self._said_bytes = log.tell()
            return subprocess.Popen(
                [sys.executable, "-m", *self._arguments],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the driver
            )


class JobProcess(Struct, frozen=True):
    """A process of a job of this run."""

    pid: int
    job_id: str
    attempt: int
    command: str

    @property
    def alive(self) -> bool:
        """Whether it still is that attempt's and no zombie, which has no environment."""
        variables = _variables(self.pid)
        return (variables.get("AIRUNNER_JOB_ID"), variables.get("AIRUNNER_ATTEMPT")) == (self.job_id, str(self.attempt))


def job_processes(home: Path) -> list[JobProcess]:
    """Every process whose environment says that an agent of this home started it."""
    return [
        JobProcess(pid, variables["AIRUNNER_JOB_ID"], int(variables["AIRUNNER_ATTEMPT"]), _command(pid))
        for pid, variables in _all_variables()
        if variables.get("AIRUNNER_WORKSPACE", "").startswith(f"{home}/")
    ]


def two_at_once(processes: Iterable[JobProcess]) -> dict[str, list[int]]:
    """The attempts that live at the same instant, of jobs with more than one."""
    by_job: dict[str, dict[int, list[JobProcess]]] = {}
    for process in processes:
        by_job.setdefault(process.job_id, {}).setdefault(process.attempt, []).append(process)
    found: dict[str, list[int]] = {}
    for job_id, attempts in by_job.items():
        living = attempts
        for _ in range(2):  # whoever lives at the second look lived at the end of the first
            alive = {number: [one for one in members if one.alive] for number, members in living.items()}
            living = {number: members for number, members in alive.items() if members}
        if len(living) > 1:
            found[job_id] = sorted(living)
    return found


def connects_from(pid: int, port: int) -> bool:
    """Check whether a process, or a child of it, has the connection from this port of 127.0.0.1."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    names = {f"socket:[{row[9]}]" for row in rows if row[1] == f"0100007F:{port:04X}"}
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return any(names & set(_opened(one, "socket:")) for one in (pid, *map(int, children)))


def airunner_processes(home: Path) -> list[int]:
    """Every process of airunner itself in this home: brokers, agents, clients, and launchers and keepers, who hold
    the lock of their agent's folder and have no environment to speak of.
    """
    with_home = [
        pid for pid, variables in _all_variables() if Path(variables.get("AIRUNNER_HOME", "/")).is_relative_to(home)
    ]
    with_lock = [pid for pid in _all_pids() if any(_opened(pid, f"{home}/"))]
    return sorted({*with_home, *with_lock} - {os.getpid()})


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send the signal, unless it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def command_of(pid: int) -> str:
    return f"{pid} {_command(pid)}"


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _all_pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]


def _all_variables() -> Iterator[tuple[int, dict[str, str]]]:
    for pid in _all_pids():
        if variables := _variables(pid):
            yield pid, variables


def _opened(pid: int, start: str) -> Iterator[str]:
    """What the process has open whose name starts so."""
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if (target := str(link.readlink())).startswith(start):
                    yield target


def _variables(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (pair.partition(b"=") for pair in raw.split(b"\0"))
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}


@contextmanager
def breaking(module: str, temporary: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run of `python -m MODULE` in a folder; it ends all that it began however this block is left."""
    run = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        env={**unmeasured(), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with run:
        try:
            yield run
        finally:
            run.terminate()


def unmeasured() -> dict[str, str]:
    """The environment of a run of which no coverage is taken: it would be slow."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def run_in_folder(name: str, run: Callable[[Path, ExitStack], bool]) -> int:
    """Run it in a folder of its own, which is kept unless all is well, and end all that it began; the exit code.

    SIGINT, SIGTERM, SIGHUP and a closed stdout interrupt it.
    """
    for number in ENDS:
        signal.signal(number, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix=f"airunner-{name}-"))
    keep = True
    try:
        with ExitStack() as ends:
            try:
                keep = not run(folder, ends)
            finally:
                for number in ENDS:
                    signal.signal(number, signal.SIG_IGN)
    except (KeyboardInterrupt, BrokenPipeError):
        keep = False
        return EXIT_INTERRUPTED
    finally:
        if keep:
            sys.stdout.write(f"what was found is in {folder}\n")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return int(keep)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
