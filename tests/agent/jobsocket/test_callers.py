"""Callers of a job's socket: who is at the other end, and whether it descends from the job's keeper."""

from __future__ import annotations

import os
import socket

import pytest

from airunner.agent.jobsocket.callers import keeper_of, refusal_of

UID = 54_321  # of no account


@pytest.mark.parametrize(
    ("uid", "keeper", "why"),
    [
        (os.getuid(), os.getppid(), None),
        (os.getuid(), os.getpid(), "none of the job's"),
        (os.getuid(), None, "none of the job's"),
    ],
)
def test_only_processes_below_the_keeper_may_ask(uid: int, keeper: int | None, why: str | None) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        refusal = refusal_of(ours, uid, keeper)
    assert refusal is why or (why is not None and refusal is not None and why in refusal)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_is_refused_also_below_the_keeper() -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0airunner-test-{os.getpid()}")  # an abstract address has no mode
        listening.listen()
        with socket.socket(socket.AF_UNIX) as calling:
            os.seteuid(UID)
            try:
                calling.connect(listening.getsockname())
            finally:
                os.seteuid(0)
            connection, _ = listening.accept()
            with connection:
                assert refusal_of(connection, UID, os.getppid()) is None
                assert "another user" in str(refusal_of(connection, UID + 1, os.getppid()))


def test_the_keeper_is_the_commands_parent() -> None:
    assert keeper_of(os.getpid()) == os.getppid()
    assert keeper_of(2**31 - 1) is None
