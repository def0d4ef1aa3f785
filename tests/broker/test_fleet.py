"""The Fleet beats, names the peers to the bus, and adopts who has died: the Ledger and the bus are the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from airunner.broker.fairqueue import OwnCommand
from airunner.broker.fleet import HINT_S, Fleet
from airunner.broker.identity import advertised, broker_id
from airunner.broker.inbox import Adopted, Beaten
from airunner.broker.lifecycle.commands import Adopt, Beat
from airunner.broker.peerwatch import BEAT_S, DEAD_S
from airunner.broker.store.rows import BrokerRow, BrokerSeen
from airunner.protocol.errors import OperatorError
from airunner.protocol.replies import BrokerSummary
from tests.broker.stage import ToLedger, acting
from tests.broker.test_peerwatch import ME, row


class Bus:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.heard: dict[str, int] = {}
        self.peers: dict[str, str] = {}
        self.made_ready = 0

    def miss(self, stored: Mapping[str, int]) -> None:
        self.made_ready += any(seq > self.heard.get(broker, -1) for broker, seq in stored.items())
        self.heard |= stored

    def set_peers(self, peers: Mapping[str, str]) -> None:
        self.peers = dict(peers)

    def ready_all(self) -> None:
        self.made_ready += 1


class Stage:
    def __init__(self) -> None:
        self.ledger, self.bus = ToLedger[OwnCommand](), Bus()
        self.said: list[str] = []
        self.to_fleet, inbox = anyio.create_memory_object_stream[Beaten | Adopted](1)
        self.inbox = inbox
        self.adoptable = {"b"}
        self.fleet = Fleet(inbox, self.ledger, self.bus, ME, self.said.append)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        async with acting(self.fleet.run):
            yield
        for stream in (self.ledger, self.to_fleet, self.inbox):
            stream.close()

    async def beat(self, *others: BrokerRow) -> list[OwnCommand]:
        """Answer the next beat; return what the Ledger was sent before it."""
        before: list[OwnCommand] = []
        while (command := await self.ledger.received.receive()) != Beat():
            assert isinstance(command, Adopt)
            self.to_fleet.send_nowait(Adopted(frozenset({command.seen.broker} & self.adoptable)))
            before.append(command)
        self.to_fleet.send_nowait(Beaten((row(ME), *others) if others else ()))
        return before


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    async with stage.opened():
        yield stage


async def test_it_beats_every_second_and_waits_for_each_beat(stage: Stage) -> None:
    await stage.beat(row("a"))
    began_s = anyio.current_time()
    await stage.beat(row("a"))
    assert anyio.current_time() - began_s == pytest.approx(BEAT_S)
    assert await stage.ledger.received.receive() == Beat()
    await anyio.sleep(60)  # virtual
    assert stage.ledger.received.statistics().current_buffer_used == 0, "the store is away, and one beat waits for it"


async def test_who_has_died_is_adopted_until_its_row_says_so(stage: Stage) -> None:
    beats = int(DEAD_S / BEAT_S) + 1
    for _ in range(beats):
        assert await stage.beat(row("a", 5), row("b", 1)) == []
    adopt = Adopt(BrokerSeen("a", 1, 5))
    assert await stage.beat(row("a", 5), row("b", 2)) == [adopt, Adopt(BrokerSeen("b", 1, 1))]
    assert await stage.beat(row("a", 5, dead=True), row("b", 3)) == [adopt]
    assert stage.bus.peers == {"a": "tcp://a:7071", "b": "tcp://b:7071"}
    assert await stage.beat() == []
    assert stage.bus.peers == {"b": "tcp://b:7071"}
    assert stage.said == ["broker b at tcp://b:7070 has written nothing for 10 s: its jobs are adopted"]


async def test_a_hint_that_has_not_come_a_while_after_its_number_makes_everything_ready_once(stage: Stage) -> None:
    for beat, made_ready in ((1, 1), (2, 1)):
        await stage.beat(row("a", beat, ready_seq=7))
        await anyio.sleep(HINT_S - 0.01)  # virtual
        assert stage.bus.made_ready == beat - 1
        await anyio.sleep(0.02)  # virtual
        assert stage.bus.made_ready == made_ready
    assert stage.bus.heard == {"a": 7}
    await stage.beat(row("a", 3, ready_seq=9))
    stage.bus.heard["a"] = 9  # it was on its way
    await stage.beat(row("a", 4, ready_seq=9))
    assert stage.bus.made_ready == 1


async def test_a_beat_that_was_refused_says_nothing_of_the_others(stage: Stage) -> None:
    stage.bus.heard["a"] = 0
    await stage.beat(row("a"))
    await stage.beat()
    await stage.ledger.received.receive()
    assert stage.bus.peers == {"a": "tcp://a:7071"}
    assert stage.bus.made_ready == 0


async def test_what_is_known_of_a_broker_is_shown_beside_its_row(stage: Stage) -> None:
    await stage.beat(row("a", 1, ready_seq=3))
    await stage.beat(row("a", 1, ready_seq=3))
    await anyio.sleep(BEAT_S / 2)  # virtual
    stage.bus.heard["a"] = 2
    known = BrokerSummary(id="a", endpoint="tcp://a:7070", leases=4, version="1", still_ms=1_500, missed=1)
    assert stage.fleet.show(row("a", 1, ready_seq=3, leases=4)) == known
    mine = stage.fleet.show(row(ME, ready_seq=9))
    assert (mine.asked, mine.still_ms, mine.missed) == (True, 500, 0)
    gone = stage.fleet.show(row("gone", dead=True))
    assert (gone.dead, gone.still_ms, gone.missed) == (True, None, None)
    assert not stage.fleet.is_first


def test_an_id_is_made_once_and_kept(tmp_path: Path) -> None:
    assert broker_id(tmp_path, lambda size: bytes(range(size))) == "000102030405"
    assert broker_id(tmp_path, bytes) == "000102030405"
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("nonsense")
    with pytest.raises(OperatorError, match="remove it"):
        broker_id(tmp_path, bytes)


@pytest.mark.parametrize(
    ("endpoint", "host", "shown"),
    [
        ("tcp://10.0.0.7:7070", None, "tcp://10.0.0.7:7070"),
        ("tcp://0.0.0.0:7070", "b1.example.org", "tcp://b1.example.org:7070"),
        ("tcp://10.0.0.7:7070", "b1", "tcp://b1:7070"),
        ("tcp://[::]:7070", "fd00::1", "tcp://[fd00::1]:7070"),
    ],
)
def test_other_machines_are_told_where_to_connect(endpoint: str, host: str | None, shown: str) -> None:
    assert advertised(endpoint, host) == shown


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:7070", "tcp://[::]:7070", "tcp://*:7070"])
def test_a_broker_that_listens_everywhere_has_to_say_where_it_is(endpoint: str) -> None:
    with pytest.raises(OperatorError, match="--advertise HOST"):
        advertised(endpoint, None)
