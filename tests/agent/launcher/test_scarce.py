"""Whose fault it is that a job cannot be run: a machine that is out of something stays, and so does everything else."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from airunner.agent.checkout.git import scarce_in
from airunner.agent.launcher.child import spawning, terminal
from airunner.agent.launcher.child.spawning import Refusal, spawn
from airunner.agent.launcher.child.wire import Start, Started, pack, send_with
from airunner.agent.launcher.connection import KeeperConnection
from airunner.agent.launcher.local import ChildLauncher
from airunner.agent.launcher.offloading import offload
from airunner.agent.launcher.refusal import MachineRefused, Scarce, counts, refusal_in, scarce_at_launch
from tests.agent.launcher.launching import TIMEOUT_S, Watched, children_of, descriptors_of, read_all, shell, works

pytestmark = pytest.mark.unmeasured

NEEDED = 3  # descriptors for a process: the line to its keeper, and two pipes


@contextmanager
def descriptors_max(pid: int, more: int) -> Generator[None]:
    """Let a process open no more than so many."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    listed = sorted(Path(f"/proc/{pid}/fd").iterdir())  # with the one by which it is listed, where that is ours
    used = {int(entry.name) for entry in listed if entry.is_symlink()}
    free = [number for number in range(soft) if number not in used]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[more], hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_launcher_that_can_fork_no_keeper_says_so_and_lives(launcher: ChildLauncher) -> None:
    await launcher.launch(shell("exec sleep 1000"))
    pid = launcher.pid
    with descriptors_max(pid, 1), pytest.raises(MachineRefused, match="Too many open files") as caught:
        await launcher.launch(shell("true"))
    assert caught.value.scarce is Scarce.DESCRIPTORS
    await works(launcher)
    assert launcher.pid == pid


@pytest.mark.parametrize("more", range(6))
async def test_an_agent_without_descriptors_starts_nothing_and_leaves_none_open(
    launcher: ChildLauncher, more: int
) -> None:
    process = await launcher.launch(shell("exec sleep 1000"))
    before = descriptors_of(os.getpid())
    refused: MachineRefused | None = None
    with descriptors_max(os.getpid(), more):
        try:
            (await launcher.launch(shell("exec sleep 1000"))).close()
        except MachineRefused as error:
            refused = error
    assert (refused is None) is (more >= NEEDED)
    assert refused is None or (refused.scarce, refused.begun) == (Scarce.DESCRIPTORS, False)
    assert descriptors_of(os.getpid()) == before
    assert children_of(process.pid) == []
    process.close()
    await works(launcher)


async def test_a_connection_that_is_closed_before_an_answer_is_read_keeps_no_descriptor_open() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        before = descriptors_of(os.getpid())
        connection = KeeperConnection(ours)
        connection.reserve()
        send_with(theirs, pack(Started(1)), [theirs.fileno()])
        await connection.readable()
        connection.reserve()
        connection.close()
        assert descriptors_of(os.getpid()) == before - 1  # the connection's own


async def test_jobs_keep_the_bound_that_the_agent_was_started_with(launcher: ChildLauncher) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    watched = Watched([launcher.pid])
    os.kill(launcher.pid, signal.SIGKILL)
    assert watched.gone_within(TIMEOUT_S)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        process = await launcher.launch(shell("ulimit -Sn"))
        assert await read_all(process.stdout) == f"{soft}\n".encode()
        await process.wait()
        process.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def refuse(*_: object) -> tuple[int, int, int]:
    raise OSError("out of pty devices")  # as the standard library says it: without a number


async def test_no_room_for_a_terminal_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")  # `spawn` goes there, and the tests that follow have to be back
    monkeypatch.setattr(spawning, "spawn_in_terminal", refuse)
    with pytest.raises(Refusal) as caught:
        spawn(Start([b"/bin/true"], {}, b"/", [24, 80], None, []))
    assert scarce_at_launch(caught.value.errno) is Scarce.PROCESSES


@pytest.mark.parametrize(("name", "broken"), [("_TIOCGPTPEER", 0), ("TerminalInput", refuse)])
def test_a_terminal_that_cannot_be_watched_leaves_no_command_and_no_descriptor(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: object
) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setattr(terminal, name, broken)
    before = descriptors_of(os.getpid()), children_of(os.getpid())
    with pytest.raises(Refusal):
        spawn(Start([b"/bin/sleep", b"1000"], {}, b"/", [24, 80], None, []))
    assert (descriptors_of(os.getpid()), children_of(os.getpid())) == before


async def test_without_a_thread_the_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(anyio.to_thread, "run_sync", refuse)
    assert await offload(lambda: "done") == "done"


MACHINES = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
JOBS = (errno.E2BIG, errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP, errno.ETXTBSY, 0)


@pytest.mark.parametrize("number", [*MACHINES, *JOBS], ids=errno.errorcode.get)
def test_what_a_machine_is_out_of_is_no_fault_of_the_command_and_what_is_wrong_with_it_none_of_the_machine(
    number: int,
) -> None:
    assert (scarce_at_launch(number) is not None) is (number in MACHINES)


def test_giving_back_counts_once_the_command_runs_or_the_machine_shows_nothing() -> None:
    for guessed, begun, able in product([False, True], repeat=3):
        refusal = MachineRefused(Scarce.DISK, "full", guessed=guessed)
        assert counts(refusal, begun=begun, able=able) is (begun or (guessed and able))


def test_a_refusal_is_found_in_what_task_groups_make_of_it() -> None:
    refusal = MachineRefused(Scarce.DISK, "full")
    assert refusal_in(BaseExceptionGroup("", [ExceptionGroup("", [ValueError(), refusal])])) is refusal
    assert refusal_in(ExceptionGroup("", [ValueError()])) is None
    found = refusal_in(OSError(errno.EMFILE, "Too many open files", "/x"))
    assert found is not None
    assert found.scarce is Scarce.DESCRIPTORS
    assert refusal_in(FileNotFoundError(errno.ENOENT, "No such file")) is None


@pytest.mark.parametrize(
    ("line", "scarce"),
    [
        ("fatal: write error: No space left on device", Scarce.DISK),
        ("error: unable to write file large", Scarce.DISK),
        ("error: cannot fork() for git-upload-pack '/r': Resource temporarily unavailable", Scarce.PROCESSES),
        ("fatal: unable to create thread: Resource temporarily unavailable", Scarce.PROCESSES),
        ('error: open("x"): Too many open files', Scarce.DESCRIPTORS),
        ("remote: fatal: write error: No space left on device", None),
        ("fatal: repository 'https://example.org/x.git/' not found", None),
        ("error: unable to create file a/b: File name too long", None),
    ],
)  # fmt: skip
def test_gits_words_tell_of_this_machine_and_not_of_another(line: str, scarce: Scarce | None) -> None:
    assert scarce_in(["Cloning", line]) is scarce
