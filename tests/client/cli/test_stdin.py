"""What a client takes as the standard input of a job."""

from __future__ import annotations

import os
import pty
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
import typer

from airunner.client.cli import stdin as module
from airunner.client.cli.console import Console
from airunner.client.cli.interrupts import STOPPING
from airunner.client.cli.stdin import stdin_for_job
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import STDIN_BYTES_MAX

DATA = b"\0\xff\n" * 50_000
TOO_LARGE = STDIN_BYTES_MAX + 1


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    descriptor = os.open(tmp_path / "said", os.O_RDWR | os.O_CREAT)
    yield Console(quiet=True, stdout=descriptor, stderr=descriptor)
    os.close(descriptor)


def pipe(data: bytes) -> int:
    reader, writer = os.pipe()

    def fill() -> None:
        with suppress(BrokenPipeError), os.fdopen(writer, "wb") as file:
            file.write(data)

    Thread(target=fill, daemon=True).start()
    return reader


def file(folder: Path, data: bytes, offset: int = 0) -> int:
    (folder / "file").write_bytes(data)
    descriptor = os.open(folder / "file", os.O_RDONLY)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return descriptor


def connected() -> int:
    ours, theirs = socket.socketpair()
    theirs.sendall(DATA)
    theirs.close()
    return ours.detach()


def terminal() -> int:
    master, slave = pty.openpty()
    os.close(master)
    return slave


def closed() -> int:
    descriptor = os.open("/", os.O_RDONLY)
    os.close(descriptor)
    return descriptor


KINDS: dict[str, tuple[Callable[[Path], int], bytes | str]] = {
    "a file": (lambda folder: file(folder, DATA), DATA),
    "the rest of a file": (lambda folder: file(folder, b"read" + DATA, 4), DATA),
    "as large a file as there may be": (lambda folder: file(folder, bytes(TOO_LARGE), 1), bytes(STDIN_BYTES_MAX)),
    "a pipe": (lambda _: pipe(DATA), DATA),
    "a file of the kernel": (lambda _: os.open("/proc/self/comm", os.O_RDONLY), Path("/proc/self/comm").read_bytes()),
    "an empty pipe": (lambda _: pipe(b""), b""),
    "/dev/null": (lambda _: os.open("/dev/null", os.O_RDONLY), b""),
    "another device": (lambda _: os.open("/dev/zero", os.O_RDONLY), b""),
    "a terminal": (lambda _: terminal(), b""),
    "a socket": (lambda _: connected(), DATA),
    "an eventfd": (lambda _: os.eventfd(0), b""),
    "closed": (lambda _: closed(), b""),
    "the end of a pipe that is written": (lambda _: os.pipe()[1], "cannot read standard input: Bad file descriptor"),
    "a folder": (lambda folder: os.open(folder, os.O_RDONLY), "cannot read standard input: Is a directory; --no-stdin"),
    "too large a file": (
        lambda folder: file(folder, bytes(TOO_LARGE)),
        "has 1,048,577 bytes, and a job takes 1,0",
    ),
    "too much in a pipe": (lambda _: pipe(bytes(2 * TOO_LARGE)), "has at least 1,1"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_taken_as_stdin_and_what_is_not(
    kind: str, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, expected = KINDS[kind]
    descriptor = make(tmp_path)
    monkeypatch.setattr(module, "STDIN", descriptor)
    assert stdin_for_job(console, wanted=False) == b""
    if isinstance(expected, bytes):
        assert stdin_for_job(console, wanted=True) == expected
        assert stdin_for_job(console, wanted=True) == b"", "nothing is left, as after a job file"
    else:
        with pytest.raises(OperatorError) as refused:
            stdin_for_job(console, wanted=True)
        assert expected in refused.value.message
    if kind != "closed":
        os.close(descriptor)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_pipe_that_nobody_closes_is_told_and_ctrl_c_submits_nothing(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(module, "STDIN", reader)
    monkeypatch.setattr(module, "NOTICE_S", 0.0)
    must_say = console.must_say

    def press_ctrl_c(text: str) -> None:
        must_say(text)
        if text.startswith("reading"):
            signal.raise_signal(number)

    monkeypatch.setattr(console, "must_say", press_ctrl_c)
    before = [signal.getsignal(stopping) for stopping in STOPPING]
    with pytest.raises(typer.Exit) as ended:
        stdin_for_job(console, wanted=True)
    for stopping, handler in zip(STOPPING, before, strict=True):
        signal.signal(stopping, handler)
    os.close(reader)
    os.close(writer)
    assert ended.value.exit_code == code
    assert (tmp_path / "said").read_text() == (
        "airunner: reading standard input to its end, for the job; --no-stdin leaves it out\n"
        "airunner: interrupted while reading standard input: nothing was submitted\n"
    )
