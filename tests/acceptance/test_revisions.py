"""Peers of other revisions of the protocol are served, or told at once in words that they are not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgpack
import pytest

from airunner.protocol.frames import REVISION, SERVED, magic, unserved
from tests.acceptance.conversing import Speaker, conversation, hold, missing
from tests.acceptance.running import Process, RunningBroker, environment

REVISED: Final = "tests.acceptance.revised"
UNSERVED: Final = 69  # the exit code


@pytest.mark.parametrize("revision", SERVED)
def test_a_recorded_conversation_of_each_served_revision_goes_as_it_went(broker: RunningBroker, revision: int) -> None:
    with Speaker(broker, magic(revision)) as speaker:
        said = list(hold(conversation(revision), speaker))
    assert len(said) == len(conversation(revision)) > 25
    for kind, then, now in said:
        assert not missing(then, now), kind


@pytest.mark.parametrize("revision", [REVISION + 1, 999_999])
def test_a_peer_of_a_newer_revision_is_refused_in_words_that_it_can_read(broker: RunningBroker, revision: int) -> None:
    with Speaker(broker, magic(revision)) as speaker:
        refused = msgpack.unpackb(speaker.speak(bytes(range(16)), b"whatever that means then"))
    assert (refused["type"], refused["code"]) == ("Refused", "unsupported")
    assert unserved(revision, SERVED) in refused["message"]


def test_a_client_of_another_revision_says_so_in_one_line(door: RunningBroker) -> None:
    done = listed(door, REVISION + 2)
    assert done.returncode == UNSERVED
    [line] = done.stderr.splitlines()
    assert unserved(REVISION + 2, SERVED) in line
    assert "upgrade the broker" in line


@pytest.fixture
def old(home: Path) -> Iterator[RunningBroker]:
    """A broker from before there were revisions."""
    running = RunningBroker(home, "memory:", module=REVISED, before=("1",))
    yield running
    running.stop()


def test_a_client_says_at_once_that_the_broker_is_from_before_revisions(old: RunningBroker) -> None:
    done = listed(old, REVISION)
    assert done.returncode == UNSERVED
    [line] = done.stderr.splitlines()
    assert unserved(REVISION, [1]) in line


def test_an_agent_that_is_upgraded_first_says_so_once_and_works_when_its_broker_is(old: RunningBroker) -> None:
    agent = Process(old.home, ["agent", "--broker", old.requests])
    try:
        agent.line(unserved(REVISION, [1]))
        old.process.kill()
        old.upgrade()
        agent.line("airunner agent ready")
        assert sum("revision 1" in line for line in agent.lines) == 1
    finally:
        agent.stop()


def listed(broker: RunningBroker, revision: int) -> subprocess.CompletedProcess[str]:
    """What becomes of `airunner list` in a revision."""
    return subprocess.run(
        [sys.executable, "-m", REVISED, str(revision), "list"],
        env=environment(broker.home, {"AIRUNNER_BROKER": broker.requests}),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
