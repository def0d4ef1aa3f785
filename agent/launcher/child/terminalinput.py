"""Terminal input: an end of file for each read from a job's terminal. Standard library only.

Nobody types into the terminal of a job, so a read from it would wait for ever. The end of file of a terminal is a
character, usually ^D, which one read consumes, and which a program that empties its input discards (`getpass`). So it
is written again whenever there is nothing to read, and only then.

No event says that input was read or discarded. But the kernel wakes a process that waits until it can write
- to the master: when input was read, or discarded by `tcflush`;
- to the slave: when its attributes were set, which may discard input; and after each output, so we then pause a little.
An edge-triggered epoll instance reports each wake-up. If there was another reason for it, we look at the terminal and
write nothing.

The kernel handles a character some time after it was written. If the program sets another end-of-file character
meanwhile (`stty eof x`), ours is text, and the next end would deliver it. So input is discarded before each end.

In raw mode the character is a key. A program that has read one may leave raw mode next, and what is left in the input
would be text for the next read. So the next key is written only after a pause without reads.
"""

from __future__ import annotations

import math
import os
import select
import termios
import time
from contextlib import suppress
from typing import Any, Final

PAUSE_S: Final = 0.05  # seconds from output to the next look, and from reading a key to the next key
RAW_ENDS_MAX: Final = 256  # ends for programs that read single keys: some take them for a command, and go on
_LOCAL_MODES, _CHARACTERS = 3, 6  # indices in the attributes of termios(3)
_WRITABLE: Final = select.EPOLLOUT | select.EPOLLET
_PAUSED: Final = select.EPOLLET  # a hangup is reported all the same: once, where 0 would report it for ever


class TerminalInput:
    """Terminal input of one job; it owns all three descriptors. Call `feed` when `watched` is readable, and at `due_s`.

    `due_s` is on the monotonic clock.
    """

    def __init__(self, epoll: select.epoll, master: int, slave: int) -> None:
        self._epoll = epoll
        self._master = master
        self._slave = slave  # must stay open while the command runs, see `terminal.py`
        self._raw_ends = 0
        self.watched = epoll.fileno()
        self.due_s = math.inf
        os.set_blocking(master, False)
        epoll.register(master, _WRITABLE)
        epoll.register(slave, _WRITABLE)
        self.feed()

    def feed(self) -> None:
        """Write an end of file if there is nothing to read: neither another end nor a line."""
        woken = {descriptor for descriptor, _ in self._epoll.poll(0)}
        rested = time.monotonic() >= self.due_s
        if rested:
            self._epoll.modify(self._slave, _WRITABLE)
            self._epoll.poll(0)  # reports that it can be written now, which we know
            self.due_s = math.inf
        elif self._slave in woken:
            self._pause()
        readable = select.poll()
        readable.register(self._slave, select.POLLIN)
        if readable.poll(0):
            if not woken and not self._paused and not rested:  # by output: there is no room for more yet
                self._pause()
        else:
            with suppress(OSError, termios.error):  # the terminal was hung up
                self._end(key=rested and self._master not in woken)

    def close(self) -> None:
        """Close the descriptors: the command has ended."""
        self._epoll.close()
        os.close(self._master)
        os.close(self._slave)

    @property
    def _paused(self) -> bool:
        return self.due_s < math.inf

    def _pause(self) -> None:
        if not self._paused:
            self._epoll.modify(self._slave, _PAUSED)
        self.due_s = time.monotonic() + PAUSE_S

    def _end(self, *, key: bool) -> None:
        """Write an end of file; in raw mode only if a `key` may be written now, and otherwise after a pause."""
        if not _is_raw(termios.tcgetattr(self._slave)):
            termios.tcflush(self._slave, termios.TCIFLUSH)
            self._epoll.poll(0)  # reports that input was discarded; attributes that were set as well are read next
        attributes = termios.tcgetattr(self._slave)
        raw = _is_raw(attributes)
        end = attributes[_CHARACTERS][termios.VEOF]
        if end == b"\0" or (raw and self._raw_ends == RAW_ENDS_MAX):  # NUL: the program has disabled it
            return
        if raw and not key:
            self._pause()
            return
        self._raw_ends += raw
        os.write(self._master, end)


def _is_raw(attributes: list[Any]) -> bool:
    return not attributes[_LOCAL_MODES] & termios.ICANON
