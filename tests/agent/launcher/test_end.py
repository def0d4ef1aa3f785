"""Nothing of a job is left behind, and who had to be ended is named."""

from __future__ import annotations

import signal
import sys
from functools import partial
from math import inf

import anyio
import pytest

from airunner.agent.launcher.child.ending import Ending
from airunner.agent.launcher.child.tree import Status
from airunner.agent.launcher.contract import Exit, Process
from airunner.agent.launcher.local import ChildLauncher
from airunner.protocol.fields import TerminalSize
from tests.agent.launcher.launching import (
    TIMEOUT_S,
    Watched,
    children_of,
    command,
    ended,
    read_all,
    read_lines,
    shell,
    works,
)

pytestmark = pytest.mark.unmeasured

STUBBORN = "trap '' TERM HUP; echo $$; while :; do sleep 1000; done"
POLITE = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # a shell's trap could come between two commands
print("up", flush=True)
signal.sigwait({signal.SIGTERM})
print("bye", flush=True)
sys.exit(5)
"""
LITTER = """
import os, signal
def run(number):
    os.execvp("sleep", ["sleep", str(number)])  # our end of the pipe closes with it: that tells that it runs
waiting, told = os.pipe()
if os.fork() == 0:
    os.setsid()
    run(1001)
if os.fork() == 0:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run(1002)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        run(1003)
    os._exit(0)
os.close(told)
os.read(waiting, 1)
"""
NEWBORN = """
setsid sleep 1001 &
(setsid sh -c 'sleep 1002 & exit' &)
nohup sleep 1003 >/dev/null 2>&1 &
"""
NEWBORN_NAMES = ("sleep 1001", "sleep 1002", "sleep 1003")
NAMELESS = """
import ctypes, os, threading, time
waiting, told = os.pipe()
if os.fork() == 0:
    def live_on():
        while open("/proc/self/cmdline").read():
            os.sched_yield()
        os.close(told)
        time.sleep(1000)
    threading.Thread(target=live_on).start()
    exit_thread = 60 if os.uname().machine == "x86_64" else 93  # exit(2), not exit_group(2)
    ctypes.CDLL(None).syscall(exit_thread, 0)  # the first thread alone ends, and the command line with it
os.close(told)
os.read(waiting, 1)
"""
HOPPER = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setpgid(0, 0)
    print("hopping", flush=True)
    while not os.fork():
        pass
os._exit(0)
"""
TRAP = "trap 'echo begin; sleep 0.2; echo done; exit 9' TERM; "
HANDLER = """
import signal, subprocess, sys
def end(number, frame):
    print("begin", flush=True)
    subprocess.run(["sleep", "0.2"], check=True)
    print("done", flush=True)
    sys.exit(9)
signal.signal(signal.SIGTERM, end)
subprocess.run(["sh", "-c", "echo up; exec sleep 30"])
"""
CLEANUP = {
    "a trap of sh": ("sh", "-c", f"{TRAP} echo up; sleep 30 & wait"),
    "a trap of bash": ("bash", "-c", f"{TRAP} echo up; sleep 30 & wait"),
    "a handler of Python": (sys.executable, "-c", HANDLER),
    "a trap below a shell": ("sh", "-c", f'trap : TERM; sh -c "{TRAP} echo up; sleep 30 & wait"; exit $?'),
    "a trap whose children have children": (
        "sh",
        "-c",
        'trap \'echo begin; sh -c "sh -c \\"sleep 0.2; echo done\\"; exit"; exit 9\' TERM; echo up; sleep 30 & wait',
    ),
    "job control": ("bash", "-c", f"set -m; {TRAP} sleep 30 & echo up; wait"),
    "a pipeline as cleanup": (
        "sh",
        "-c",
        "trap 'echo begin; sleep 0.2 | (cat; echo done); exit 9' TERM; echo up; sleep 30 & wait",
    ),
    "a process in another session": ("sh", "-c", f"{TRAP} setsid sleep 30 & echo up; wait"),
    "a stopped process": ("sh", "-c", f"{TRAP} sleep 30 & echo up; kill -STOP $$; wait"),
}


@pytest.mark.parametrize("argv", CLEANUP.values(), ids=CLEANUP.keys())
async def test_each_process_is_asked_to_end_once_and_its_cleanup_is_left_alone(
    launcher: ChildLauncher, argv: tuple[str, ...]
) -> None:
    async def end_some() -> None:
        process = await launcher.launch(command(*argv))
        await read_lines(process.stdout, 1)
        assert await process.end(TIMEOUT_S) == []
        assert await process.wait() == Exit(9, None)
        assert await read_all(process.stdout) == b"begin\ndone\n"

    async with anyio.create_task_group() as lanes:
        for _ in range(8):
            lanes.start_soon(end_some)


def test_a_process_that_waits_for_a_processor_since_its_fork_is_asked_once_it_has_run() -> None:
    """Until then it has its parent's handler, in which the signal would be lost."""
    caught = 1 << signal.SIGTERM - 1
    forked = Status(2, 1, group=1, session=1, began=0, ran=0, state=b"R", alive=True, ignored=0, caught=caught)
    ending = Ending(inf, number=signal.SIGTERM)
    assert ending.unasked([forked], 1) == []
    for later in (forked._replace(ran=1), forked._replace(state=b"S"), forked._replace(caught=0)):
        assert ending.unasked([later], 1) == [later]


@pytest.mark.parametrize("terminal", [None, TerminalSize()])
async def test_daemons_are_ended_and_named(launcher: ChildLauncher, terminal: TerminalSize | None) -> None:
    """setsid, nohup, and the classical double fork: each runs by the time the command ends."""
    process = await launcher.launch(command(sys.executable, "-c", LITTER, terminal=terminal))
    assert await process.wait() == Exit(0, None)
    survivors = await process.end(TIMEOUT_S)
    assert sorted(survivor.command for survivor in survivors) == ["sleep 1001", "sleep 1002", "sleep 1003"]
    assert not any(survivor.left for survivor in survivors)
    (keeper,) = children_of(launcher.pid)
    assert children_of(keeper) == []
    await read_all(process.stdout)  # nobody holds it open


async def test_daemons_that_are_just_being_born_are_named_too(launcher: ChildLauncher) -> None:
    """The command ends while they fork and exec: none is ended under another's name, or under none."""

    async def end_some() -> None:
        for _ in range(12):
            process = await launcher.launch(shell(NEWBORN))
            assert await process.wait() == Exit(0, None)
            commands = [survivor.command for survivor in await process.end(0.5)]
            unnamed = [name for name in NEWBORN_NAMES if not any(name in command for command in commands)]
            assert (unnamed, commands) == ([], commands)
            process.close()

    async with anyio.create_task_group() as lanes:
        for _ in range(4):
            lanes.start_soon(end_some)


async def test_one_without_a_command_line_goes_by_its_name(launcher: ChildLauncher) -> None:
    process = await launcher.launch(command(sys.executable, "-c", NAMELESS))
    assert await process.wait() == Exit(0, None)
    (survivor,) = await process.end(TIMEOUT_S)
    assert survivor.command.startswith("[")


async def test_a_command_cut_short_may_say_goodbye(launcher: ChildLauncher) -> None:
    process = await launcher.launch(command(sys.executable, "-c", POLITE))
    await read_lines(process.stdout, 1)
    assert await process.end(TIMEOUT_S) == []
    assert await process.wait() == Exit(5, None)
    assert await read_all(process.stdout) == b"bye\n"


async def test_a_command_that_is_cancelled_as_it_starts_may_say_goodbye_too(launcher: ChildLauncher) -> None:
    await ended(await launcher.launch(shell("true")))  # its keeper waits for another command
    process: Process | None = None

    async def cancel(scope: anyio.CancelScope) -> None:
        scope.cancel()

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(cancel, scope)  # while the launch waits for its keeper's answer
            process = await launcher.launch(command(sys.executable, "-c", POLITE))
    assert process is not None
    await read_lines(process.stdout, 1)
    await process.end(TIMEOUT_S)
    assert await read_all(process.stdout) == b"bye\n"


async def test_what_ignores_sigterm_is_killed_after_the_grace(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell(f"setsid sh -c '{STUBBORN.replace(chr(39), chr(34))}' & wait"))
    (stubborn,) = await read_lines(process.stdout, 1)
    survivors = await process.end(0.05)
    assert stubborn in [str(survivor.pid) for survivor in survivors]
    assert process.pid not in [survivor.pid for survivor in survivors]
    assert await process.wait() == Exit(None, signal.SIGTERM)
    assert await read_all(process.stdout) == b""


async def test_without_a_grace_there_is_no_sigterm(launcher: ChildLauncher) -> None:
    process = await launcher.launch(command(sys.executable, "-c", POLITE))
    await read_lines(process.stdout, 1)
    assert await ended(process, 0) == Exit(None, signal.SIGKILL)


async def test_a_stopped_job_is_ended_without_waiting_for_the_grace(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell("echo up; kill -STOP $$; sleep 1000"))
    await read_lines(process.stdout, 1)
    assert await ended(process, 1000) == Exit(None, signal.SIGTERM)


async def test_a_process_that_forks_away_faster_than_we_look_is_caught(launcher: ChildLauncher) -> None:
    process = await launcher.launch(command(sys.executable, "-c", HOPPER))
    await read_lines(process.stdout, 1)
    await process.wait()
    await process.end(0.05)
    assert await read_all(process.stdout) == b""


async def test_cancelling_the_end_kills_at_once(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell(STUBBORN))
    watched = Watched([int(line) for line in await read_lines(process.stdout, 1)])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.end, 1000)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert watched.gone_within(0)  # it is over only when they are
    assert await process.wait() == Exit(None, signal.SIGKILL)
    assert process.pid not in [survivor.pid for survivor in await process.end(TIMEOUT_S)]


async def test_a_second_end_may_shorten_the_grace(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell(STUBBORN))
    await read_lines(process.stdout, 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.end, 1000)
        await anyio.wait_all_tasks_blocked()
        assert await ended(process, 0) == Exit(None, signal.SIGKILL)


async def test_closing_kills_at_once(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell(STUBBORN))
    watched = Watched([int(line) for line in await read_lines(process.stdout, 1)])
    process.close()
    assert watched.gone_within(TIMEOUT_S)
    with pytest.raises(anyio.ClosedResourceError):
        await process.wait()


async def test_two_may_end_a_job_together_and_two_hear_of_it(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell("sleep 1000"))
    heard: list[Exit] = []

    async def wait() -> None:
        heard.append(await process.wait())

    async with anyio.create_task_group() as tasks:
        for act in (wait, wait, partial(process.end, TIMEOUT_S), partial(process.end, TIMEOUT_S)):
            tasks.start_soon(act)
    assert heard == [Exit(None, signal.SIGTERM)] * 2
    process.close()
    await works(launcher)  # its keeper has nothing left to say of the first


async def test_the_command_may_end_just_as_it_is_ended(launcher: ChildLauncher) -> None:
    for _ in range(50):
        process = await launcher.launch(shell("exit 4"))
        await process.end(TIMEOUT_S)
        assert await process.wait() in (Exit(4, None), Exit(None, signal.SIGTERM))
        process.close()


async def test_what_is_born_just_before_its_parent_is_asked_is_asked_too(launcher: ChildLauncher) -> None:
    """Its parent lives on, and starts others all the time: none of them outlives the job by the whole grace."""
    script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.001; (sleep 30 &) ; done"
    process = await launcher.launch(shell(script))
    await read_lines(process.stdout, 1)
    with anyio.fail_after(TIMEOUT_S):
        assert await ended(process, 1000) == Exit(9, None)


@pytest.mark.parametrize(
    ("number", "script", "exit_"),
    [
        (
            signal.SIGINT,
            "trap 'exit 9' INT; echo up; sleep 30 & wait",
            Exit(9, None),
        ),  # the background process ignores it
        (signal.SIGINT, "echo up; exec sleep 30", Exit(None, signal.SIGINT)),
        (signal.SIGINT, "trap '' INT; echo up; exec sleep 30", Exit(None, signal.SIGTERM)),
        (
            signal.SIGINT,
            "trap 'exit 8' TERM; trap 'sleep 0.2; exit 9' INT; echo up; setsid sleep 30 & wait",
            Exit(9, None),
        ),
        (signal.SIGWINCH, "echo up; exec sleep 30", Exit(None, signal.SIGTERM)),
        (signal.SIGWINCH, "trap 'exit 9' WINCH; echo up; sleep 30 & wait", Exit(9, None)),
    ],
)
async def test_another_signal_than_sigterm_may_be_asked_with(
    launcher: ChildLauncher, number: signal.Signals, script: str, exit_: Exit
) -> None:
    process = await launcher.launch(shell(script))
    await read_lines(process.stdout, 1)
    with anyio.fail_after(TIMEOUT_S):
        assert await process.end(1000, number) == []
    assert await process.wait() == exit_
