"""A broker under nonsense, for a short while; `make fuzz` does it for longer."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from random import SystemRandom
from types import SimpleNamespace
from typing import Any

import pytest

from airunner.protocol.coding import decode_request, encode
from airunner.protocol.errors import PeerError
from airunner.protocol.frames import unpack_request
from tests.acceptance.chaos_processes import airunner_processes, breaking, command_of
from tests.fuzz.asking import Asking, Tokens
from tests.fuzz.streams import Shallow
from tests.fuzz.vitals import GROWTH_MIB_MAX, Vitals

COUNT = 2_000
DECODED = 5_000


fuzz = partial(breaking, "tests.fuzz")


@pytest.mark.timeout(120)
def test_a_broker_under_nonsense_lives_serves_grows_not_and_loses_nothing(tmp_path: Path) -> None:
    with fuzz(tmp_path, "--requests", str(COUNT), "--streams", str(COUNT)) as run:
        said, _ = run.communicate()
    assert run.returncode == 0, said
    for reached in (*("JobsEnqueued", "JobsLeased", "JobEventsPublished", "bad-request"), "welcomed", "greeted"):
        assert reached in said, said
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(120)
def test_a_broker_that_dies_of_it_is_found_and_the_run_can_be_repeated(tmp_path: Path) -> None:
    with fuzz(tmp_path, "--requests", "10000000", "--streams", "10000000", "--seed", "7") as run:
        assert run.stdout is not None
        next(line for line in run.stdout if "well-formed" in line)
        (folder,) = tmp_path.iterdir()
        brokers = [pid for pid in airunner_processes(folder / "home") if "airunner broker" in command_of(pid)]
        (broker,) = brokers
        os.kill(broker, signal.SIGKILL)
        said = run.stdout.read()
    assert run.returncode == 1, said
    assert "the broker has ended" in said
    assert "--requests 10000000 --streams 10000000 --seed 7" in said
    assert not airunner_processes(folder / "home")


def test_a_broker_that_grows_is_found() -> None:
    ours: Any = SimpleNamespace(process=SimpleNamespace(pid=os.getpid(), running=True, lines=[]))
    vitals = Vitals(ours)
    vitals.look(0.1)
    assert not vitals.faults()
    leak = b"x" * int(2 * GROWTH_MIB_MAX * 2**20)
    vitals.look(0.9)
    assert leak
    (fault,) = vitals.faults()
    assert fault.startswith("memory grew")


def asking(seed: str) -> Asking:
    return Asking(seed, Tokens(b"head.claims.signature", [b"lesser.claims.signature"]))


def test_a_seed_draws_the_same_requests_and_streams() -> None:
    for draw in (asking, lambda seed: Shallow(seed, bytes(200))):
        first, again, other = draw("7"), draw("7"), draw("8")
        drawn = [first.next() for _ in range(500)]
        assert drawn == [again.next() for _ in range(500)]
        assert drawn != [other.next() for _ in range(500)]


def test_whatever_comes_is_a_request_or_its_peers_fault() -> None:
    seed = str(SystemRandom().randrange(10**6))
    supply = asking(seed)
    requests = 0
    for number in range(DECODED):
        frames = supply.next()
        try:
            request = decode_request(unpack_request(frames).body)
        except PeerError:
            continue
        except Exception as error:
            raise AssertionError(f"request {number} of seed {seed}: {frames!r:.2000}") from error
        requests += 1
        assert decode_request(encode(request)) == request, f"request {number} of seed {seed}"
    assert DECODED // 10 < requests < DECODED // 2, "neither all of them nor none"
