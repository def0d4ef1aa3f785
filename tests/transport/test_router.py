"""The broker's ROUTER reads each message, whatever consumed the descriptor's change; other tasks get their turns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from airunner.transport import sockets
from airunner.transport.anyiosocket import has_message
from airunner.transport.ports import Incoming, Sent
from airunner.transport.sockets import CurveRouter
from tests.transport.test_networks import TIMEOUT_S, Sides, over_sockets
from tests.virtualtime import real_time  # noqa: F401 - a fixture


class Passes:
    """What each pass of a router heard."""

    def __init__(self) -> None:
        self.heard: list[list[Incoming]] = []
        self.more = anyio.Event()

    def accept(self, messages: Iterable[Incoming]) -> None:
        if heard := list(messages):
            self.heard.append(heard)
            self.more.set()

    async def until(self, count: int) -> None:
        """Wait until so many messages came."""
        while sum(map(len, self.heard)) < count:
            self.more = anyio.Event()
            await self.more.wait()


@asynccontextmanager
async def serving(folder: Path, passes: Passes) -> AsyncIterator[tuple[Sides, CurveRouter]]:
    with anyio.fail_after(TIMEOUT_S):
        async with over_sockets(folder) as sides, anyio.create_task_group() as group:
            assert isinstance(sides.router, CurveRouter)
            group.start_soon(sides.router.serve, passes.accept)
            yield sides, sides.router
            group.cancel_scope.cancel()


async def test_a_message_whose_notice_a_send_consumed_is_read(tmp_path: Path) -> None:
    passes = Passes()
    async with serving(tmp_path, passes) as (sides, router):
        dealer = sides.network.dealer(router.endpoint)
        dealer.send([b"first"])
        await passes.until(1)
        dealer.send([b"second"])
        while not has_message(router._raw):  # this is what consumes it, as the send may
            pass
        assert router.send(passes.heard[0][0].peer, [b"reply"]) is Sent.DONE
        await passes.until(2)


async def test_a_message_whose_notice_a_send_consumed_at_the_end_of_a_pass_is_read(tmp_path: Path) -> None:
    class Answering(Passes):
        """Replies when it has heard all messages of a pass, as the broker does; then the next has come."""

        def accept(self, messages: Iterable[Incoming]) -> None:
            super().accept(messages)
            if len(self.heard) == 1:
                dealer.send([b"second"])
                while not has_message(router._raw):  # this is what consumes it, as the send may
                    pass
                assert router.send(self.heard[0][0].peer, [b"reply"]) is Sent.DONE

    passes = Answering()
    async with serving(tmp_path, passes) as (sides, router):
        dealer = sides.network.dealer(router.endpoint)
        dealer.send([b"first"])
        await passes.until(2)


async def test_a_router_reads_on_after_other_tasks_had_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "DRAIN_S", 0)
    passes = Passes()
    async with serving(tmp_path, passes) as (sides, router):
        dealer = sides.network.dealer(router.endpoint)
        for _ in range(5):
            dealer.send([b"x"])
        await passes.until(5)
        assert list(map(len, passes.heard)) == [1] * 5


async def test_a_failure_to_accept_ends_the_one_who_serves(tmp_path: Path) -> None:
    def refuse(_: Iterable[Incoming]) -> None:
        raise ZeroDivisionError

    async with over_sockets(tmp_path) as sides:
        with pytest.raises(ZeroDivisionError):
            await sides.router.serve(refuse)
