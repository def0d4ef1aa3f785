"""What a command in a terminal of its own may count on, and what it may do to that terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from airunner.agent.launcher.contract import ByteSource, Exit
from airunner.agent.launcher.local import ChildLauncher
from airunner.protocol.fields import TERMINAL_SIDE_MAX, TerminalSize
from tests.agent.launcher.launching import PATIENCE_S, read_all, read_lines, shell

pytestmark = pytest.mark.anyio


async def test_a_terminal_is_one_with_the_size_asked_for(launcher: ChildLauncher) -> None:
    look = f"exec {sys.executable} -c 'import os; print(os.isatty(0), os.isatty(2), os.get_terminal_size())'"
    spec = shell(f"stty -opost; {look}", terminal=TerminalSize(cols=101, rows=33))
    with closing(await launcher.launch(spec)) as process:
        assert process.stderr is None
        expected = b"True True os.terminal_size(columns=101, lines=33)\n"
        assert await read_all(process.stdout) == expected


async def test_the_terminal_is_the_sessions_own(launcher: ChildLauncher) -> None:
    """Without a controlling terminal there is no /dev/tty, no job control and no SIGHUP."""
    with closing(await launcher.launch(shell("echo heard >/dev/tty", terminal=TerminalSize()))) as process:
        assert await read_all(process.stdout) == b"heard\r\n"


async def test_a_command_may_let_go_of_its_terminal_and_come_back(launcher: ChildLauncher, tmp_path: Path) -> None:
    pipes = [tmp_path / name for name in ("gone", "go")]
    for pipe in pipes:
        os.mkfifo(pipe)
    gone, go = (os.open(pipe, os.O_RDWR | os.O_NONBLOCK) for pipe in pipes)  # so that nobody waits for the other end
    let_go = f"exec </dev/null >/dev/null 2>&1; echo >{pipes[0]}; read line <{pipes[1]}; echo back >/dev/tty; exit 3"
    read: list[bytes] = []

    async def reading(source: ByteSource) -> None:
        read.append(await read_all(source))

    try:
        with closing(await launcher.launch(shell(let_go, terminal=TerminalSize()))) as process:
            async with anyio.create_task_group() as group:
                group.start_soon(reading, process.stdout)
                await anyio.wait_readable(gone)
                await anyio.wait_all_tasks_blocked()  # an end of the terminal would have been read
                assert read == []
                os.write(go, b"\n")
            assert read == [b"back\r\n"]
            assert await process.wait() == Exit(exit_code=3, signal=None)
            assert await process.end(PATIENCE_S) == []
    finally:
        os.close(gone)
        os.close(go)


@pytest.mark.parametrize("side", [0, TERMINAL_SIDE_MAX + 1])
async def test_a_size_that_no_terminal_has_is_not_told(launcher: ChildLauncher, side: int) -> None:
    """An event with such a size would be refused by the broker."""
    spec = shell(f"stty cols {side}; echo; exec sleep 1000", terminal=TerminalSize())
    with closing(await launcher.launch(spec)) as process:
        await read_lines(process.stdout, 1)
        assert process.terminal_size() is None


LATE_SPAWN = """
import os, sys, termios
from airunner.agent.launcher.child.terminal import spawn_in_terminal
from airunner.agent.launcher.child.wire import Start

read, resized = os.read, sys.argv[1]

def read_late(descriptor, size):
    told = read(descriptor, size)  # the end of the pipe: the command runs
    os.close(os.open(resized, os.O_RDONLY))  # and has set its size
    return told

os.read = read_late
script = 'stty cols 101; : > "$0"; exec sleep 1000'
start = Start([b"sh", b"-c", script.encode(), resized.encode()], dict(os.environb), b"/", [33, 80], None, [])
pid, master, _ = spawn_in_terminal(start, b"/bin/sh", start.terminal)
print(*termios.tcgetwinsize(master))
os.kill(pid, 9)
"""


def test_a_size_that_the_command_sets_at_once_stays(tmp_path: Path) -> None:
    """However late its keeper hears that it runs."""
    resized = tmp_path / "resized"
    os.mkfifo(resized)
    done = subprocess.run([sys.executable, "-c", LATE_SPAWN, resized], capture_output=True, check=True)
    assert done.stdout.split() == [b"33", b"101"]
