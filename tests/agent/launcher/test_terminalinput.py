"""Nobody types into a job's terminal: whatever a program does to read from it, it gets end of file and goes on."""

from __future__ import annotations

import math
import os
import pty
import select
import sys
import termios
import tty
from typing import cast

import anyio
import pytest

from airunner.agent.launcher.child.terminalinput import RAW_ENDS_MAX, TerminalInput
from airunner.agent.launcher.contract import Exit
from airunner.agent.launcher.local import ChildLauncher
from airunner.protocol.fields import TerminalSize
from tests.agent.launcher.launching import TIMEOUT_S, command, read_all

pytestmark = pytest.mark.unmeasured

DISCARD = """
import os, termios
tty = os.open("/dev/tty", os.O_RDWR)
for _ in range(50):
    attributes = termios.tcgetattr(tty)
    attributes[3] ^= termios.ECHO
    termios.tcsetattr(tty, termios.TCSAFLUSH, attributes)  # discards what was typed before
    assert os.read(tty, 100) == b""
    termios.tcflush(tty, termios.TCIFLUSH)
    assert os.read(0, 100) == b""
print("done")
"""
RAW = """
import os, select, termios, tty
saved = termios.tcgetattr(0)
tty.setraw(0)
typed = b""
while not typed.endswith(b"\\4"):
    typed += os.read(0, 1)
while select.select([0], [], [], 0)[0]:
    typed += os.read(0, 1)
termios.tcsetattr(0, termios.TCSADRAIN, saved)
print(len(typed) < 20, os.read(0, 1))
"""
OTHER_END = "stty -echo eof x; cat; stty eof ^D; cat; echo done"


def bash(script: str) -> tuple[str, ...]:
    return ("bash", "-c", script)


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


@pytest.mark.parametrize(
    ("argv", "code", "output"),
    [
        (bash("read -r name; echo $?"), 0, "1"),
        (bash("cat; cat -; cat /dev/tty; echo done"), 0, "done"),
        (bash("for number in {1..100}; do read -r && exit 9; done; echo done"), 0, "done"),
        (bash("read -rsp 'Password: '; echo $?"), 0, "Password: 1"),
        (bash("for number in {1..5}; do read -rep '> ' && exit 9; done; printf '\\ndone'"), 0, "done"),
        (bash("sleep 0.1; bash -i; echo done"), 0, "done"),
        (bash("(sleep 0.1; cat; echo inner) | cat; set -m; cat & fg; echo done"), 0, "done"),
        (bash(OTHER_END), 0, "done"),
        (("cat",), 0, ""),
        (python("import sys; print(sys.stdin.isatty(), repr(sys.stdin.read()))"), 0, "True ''"),
        (python("input('Go on? ')"), 1, "EOFError"),
        (python("import getpass; getpass.getpass()"), 1, "EOFError"),
        (python(DISCARD), 0, "done"),
        (python(RAW), 0, "True b''"),
    ],
)
async def test_a_read_from_a_terminal_that_nobody_attends_gets_end_of_file(
    launcher: ChildLauncher, argv: tuple[str, ...], code: int, output: str
) -> None:
    process = await launcher.launch(command(*argv, terminal=TerminalSize()))
    with anyio.fail_after(TIMEOUT_S):
        written = (await read_all(process.stdout)).decode().strip()
        assert await process.wait() == Exit(code, None), written
    assert written.splitlines()[-1:] == ([output] if output else [])


def feed_after_a_pause(terminal: TerminalInput) -> None:
    terminal.feed()
    terminal.due_s = 0.0
    terminal.feed()


def test_no_key_is_left_for_the_read_after_raw_mode() -> None:
    master, slave = pty.openpty()
    terminal = TerminalInput(select.epoll(), master, slave)
    assert os.read(slave, 9) == b""
    saved = termios.tcgetattr(slave)
    tty.setraw(slave)
    feed_after_a_pause(terminal)
    assert os.read(slave, 9) == b"\4"
    terminal.feed()
    termios.tcsetattr(slave, termios.TCSADRAIN, saved)
    terminal.feed()
    assert os.read(slave, 9) == b""
    terminal.close()


def test_an_end_that_became_text_is_discarded_before_the_next() -> None:
    """The program sets another character when ours was written, and before the kernel handled it."""
    master, slave = pty.openpty()
    terminal = TerminalInput(select.epoll(), master, slave)
    assert os.read(slave, 9) == b""
    attributes = termios.tcgetattr(slave)
    attributes[6][termios.VEOF] = b"x"
    termios.tcsetattr(slave, termios.TCSADRAIN, attributes)
    os.write(master, b"\4")
    feed_after_a_pause(terminal)
    assert os.read(slave, 9) == b""
    terminal.close()


def test_a_program_that_reads_single_keys_gets_no_more_than_a_number_of_ends() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    terminal = TerminalInput(select.epoll(), master, slave)
    for _ in range(RAW_ENDS_MAX):
        feed_after_a_pause(terminal)
        assert os.read(slave, 9) == b"\4"
    feed_after_a_pause(terminal)
    os.write(master, b"typed")
    assert os.read(slave, 9) == b"typed"
    terminal.close()


def test_a_terminal_that_was_hung_up_wakes_nobody_any_more() -> None:
    master, slave = pty.openpty()
    terminal = TerminalInput(select.epoll(), master, slave)
    watched = select.poll()
    watched.register(terminal.watched, select.POLLIN)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, master)  # closes the terminal's only master
    os.close(nothing)
    for due_s in (terminal.due_s, 0.0):
        terminal.due_s = due_s  # the end of the pause after output
        for _ in range(3):
            terminal.feed()
        assert watched.poll(0) == []
    terminal.close()


class Filled:
    """An epoll instance that is woken by output for which there is no room again by now: it finds nothing."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.fileno, self.register, self.modify = self._epoll.fileno, self._epoll.register, self._epoll.modify
        self.close = self._epoll.close

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        assert not timeout
        return []


def test_output_that_fills_a_terminal_is_followed_by_a_pause_too() -> None:
    master, slave = pty.openpty()
    terminal = TerminalInput(cast("select.epoll", Filled()), master, slave)
    assert terminal.due_s == math.inf
    terminal.feed()
    assert terminal.due_s < math.inf
    terminal.close()
