"""How fast the Gatekeeper admits connections when thousands come at once, in virtual time."""

from __future__ import annotations

import os
from collections import Counter
from typing import cast

import anyio
import pytest

from airunner.broker.counts import Counts
from airunner.broker.gatekeeper import ADMITTED_PER_S, ALLOWED, BURST_S, REFUSED, TRY_AGAIN, WAIT_S, Gatekeeper
from airunner.broker.rates import Rates
from airunner.certs.allowlist import AllowList, Entry, PeerRole, with_entry
from airunner.certs.curve import load_client_pair, new_secret, public_of, raw_key
from airunner.certs.home import Home
from airunner.transport.anyiosocket import AnyioSocket
from airunner.transport.ports import Frames
from airunner.transport.sockets import HANDSHAKE_MS, ZAP_DOMAIN
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture


class Door:
    """In the place of the ZAP socket: these keys are asked about at once."""

    def __init__(self, keys: list[bytes]) -> None:
        self._count = len(keys)
        self._asked = [[b"peer", b"", b"1.0", b"1", ZAP_DOMAIN, b"", b"", b"CURVE", key] for key in keys]
        self.answered: list[tuple[bytes, float]] = []
        self.all_answered = anyio.Event()

    async def receive(self) -> list[Frames]:
        if not self._asked:
            await anyio.sleep_forever()
        asked, self._asked = self._asked, []
        return asked

    def send(self, frames: Frames) -> None:
        self.answered.append((frames[4], anyio.current_time()))
        if len(self.answered) == self._count:
            self.all_answered.set()


async def admitted(home: Home, keys: list[bytes]) -> list[tuple[bytes, float]]:
    """How each was answered, and after how many seconds."""
    door = Door(keys)
    keeper = Gatekeeper(cast("AnyioSocket", door), AllowList(home.allowed_clients, print), Counts(), Rates())
    began_s = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(keeper.run)
        await door.all_answered.wait()
        group.cancel_scope.cancel()
    return [(status, at_s - began_s) for status, at_s in door.answered]


async def test_connections_above_a_burst_are_admitted_at_a_bounded_rate(home: Home) -> None:
    burst, seconds = int(ADMITTED_PER_S * BURST_S), 2
    answers = await admitted(home, [raw_key(load_client_pair(home).public)] * (burst + seconds * ADMITTED_PER_S))
    assert {status for status, _ in answers} == {ALLOWED}
    by_second = Counter(int(at_s) for _, at_s in answers)
    assert by_second[0] <= burst + ADMITTED_PER_S + 1
    assert by_second[1] <= ADMITTED_PER_S
    assert sum(not at_s for _, at_s in answers) >= burst, "a few wait for nothing"


async def test_keys_that_are_not_listed_hold_nobody_up(home: Home) -> None:
    unlisted = [os.urandom(32) for _ in range(2 * ADMITTED_PER_S)]
    answers = await admitted(home, [*unlisted, raw_key(load_client_pair(home).public)])
    assert Counter(answers) == {(REFUSED, 0.0): len(unlisted), (ALLOWED, 0.0): 1}


@pytest.mark.parametrize("role", [PeerRole.CLIENT, PeerRole.BROKER])
async def test_a_client_or_broker_waits_for_no_agents_that_all_come_back_at_once(home: Home, role: PeerRole) -> None:
    agent, other = public_of(new_secret()), public_of(new_secret())
    listed = with_entry(home.allowed_clients.read_bytes(), agent, Entry("build", frozenset([PeerRole.AGENT])))
    home.allowed_clients.write_bytes(with_entry(listed, other, Entry("other", frozenset([role]))))
    crowd = int(2 * WAIT_S * ADMITTED_PER_S)
    answers = await admitted(home, [*[raw_key(agent)] * crowd, raw_key(other)])
    at_once = [status for status, at_s in answers if not at_s]
    assert at_once[-1] == ALLOWED, "the last to come"
    assert max(at_s for _, at_s in answers) > WAIT_S / 2, "agents wait"


async def test_a_peer_that_would_wait_beyond_its_handshake_is_told_to_try_again(home: Home) -> None:
    in_time = int((BURST_S + WAIT_S) * ADMITTED_PER_S)
    answers = await admitted(home, [raw_key(load_client_pair(home).public)] * (2 * in_time))
    allowed = [at_s for status, at_s in answers if status == ALLOWED]
    assert in_time <= len(allowed) <= in_time + 2
    assert max(allowed) < HANDSHAKE_MS / 1_000
    assert Counter(answers)[TRY_AGAIN, 0.0] == 2 * in_time - len(allowed), "at once, so that no reply waits behind it"
