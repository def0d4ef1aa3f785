"""The thread that works for the broker's loop."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import closing

import anyio
import anyio.lowlevel
import pytest

from airunner.transport.workthread import WorkThread
from tests.virtualtime import real_time  # noqa: F401 - a fixture


@pytest.fixture
async def thread() -> AsyncIterator[WorkThread]:
    with closing(WorkThread()) as thread:
        yield thread


async def test_all_work_runs_in_one_thread_which_is_not_the_loops(thread: WorkThread) -> None:
    ran: list[int] = []
    for _ in range(3):
        await thread(lambda: ran.append(threading.get_ident()))
    assert len(ran) == 3
    assert len(set(ran)) == 1
    assert threading.get_ident() not in ran


async def test_what_work_raises_is_raised_where_it_was_given_and_the_thread_works_on(thread: WorkThread) -> None:
    def fail() -> None:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        await thread(fail)
    done: list[str] = []
    await thread(lambda: done.append("more"))
    assert done == ["more"]


async def test_the_loop_goes_on_meanwhile_and_a_cancel_waits_for_the_end_of_the_work(thread: WorkThread) -> None:
    began, end = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        began.set()
        end.wait(timeout=10)
        done.append("work")

    async with anyio.create_task_group() as group:
        group.start_soon(thread, work)
        while not began.is_set():
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        assert done == []
        end.set()
    assert done == ["work"]
