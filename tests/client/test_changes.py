"""A client hears of every change of its tenant's jobs; and when it may not have, it is told to read the list again."""

from __future__ import annotations

import anyio

from airunner.client.changes import TenantChanges
from airunner.protocol.changes import REMINDER_S, SILENCE_S
from airunner.protocol.job import JobState
from airunner.transport.ports import Frames
from tests.client.wire import brokered


async def next_states(changes: TenantChanges) -> tuple[list[JobState], bool]:
    news = await changes.next()
    return [job.state for message in news.messages for job in message.jobs], news.again


async def test_a_list_is_read_once_and_then_changes_come_by_themselves() -> None:
    async with brokered() as (wire, client), TenantChanges(client) as changes:
        assert await next_states(changes) == ([], True)
        job = await client.submit(command="true")
        assert await next_states(changes) == ([JobState.SCHEDULED], False)
        await client.cancel(job.id)
        assert await next_states(changes) == ([JobState.CANCELLED], False)
        assert (await changes.next(3 * SILENCE_S)).again is False, "reminders show that nothing is missing"
        assert wire.asked[1:] == ["WatchTenant", "EnqueueJob", "CancelJob"]


async def test_a_lost_change_is_noticed_by_the_next_message_or_reminder() -> None:
    lost = 0

    def loses(frames: Frames) -> bool:
        nonlocal lost
        lost -= bool(frames[1])
        return bool(frames[1]) and lost >= 0

    async with brokered() as (wire, client), TenantChanges(client) as changes:
        await changes.next()
        wire.loses, lost = loses, 1
        await client.submit(command="true")
        await client.submit(command="true")
        assert await next_states(changes) == ([JobState.SCHEDULED], True)
        lost = 1
        await client.submit(command="true")
        began_s = anyio.current_time()
        assert await next_states(changes) == ([], True)
        assert anyio.current_time() - began_s <= REMINDER_S
        wire.publish([wire.published[0][0], b""])
        assert await next_states(changes) == ([], True), "confirmed again: the connection was lost meanwhile"
        wire.publish([wire.published[0][0], b"forged"])
        await client.submit(command="true")
        assert await next_states(changes) == ([JobState.SCHEDULED], False)


async def test_in_a_silence_and_before_its_key_is_over_the_streams_are_asked_for_again() -> None:
    async with brokered() as (wire, client), TenantChanges(client) as changes:
        await changes.next()
        wire.loses = lambda frames: bool(frames[1])
        began_s = anyio.current_time()
        assert await next_states(changes) == ([], True)
        assert anyio.current_time() - began_s == SILENCE_S
        wire.loses = lambda _: False
        await changes.next(1_000)
        assert wire.asked[1:] == ["WatchTenant"] * 2
        assert (await changes.next(3_600)).again, "under a new key nothing is known of what came before"
        assert wire.asked.count("WatchTenant") == 4
