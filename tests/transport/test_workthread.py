"""The thread that works for the broker's loop."""

from __future__ import annotations

import signal
import threading
from collections.abc import AsyncIterator, Callable
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


async def outcome(thread: WorkThread, work: Callable[[], object]) -> BaseException | None:
    """What the loop is told of this work."""
    told: list[BaseException | None] = []
    ended = anyio.Event()

    def then(failed: BaseException | None) -> None:
        told.append(failed)
        assert anyio.current_time() > 0, "anyio knows the loop"
        ended.set()

    thread(work, then)
    await ended.wait()
    return told[0]


async def test_all_work_runs_in_one_thread_which_is_not_the_loops(thread: WorkThread) -> None:
    ran: list[int] = []
    for _ in range(3):
        assert await outcome(thread, lambda: ran.append(threading.get_ident())) is None
    assert len(ran) == 3
    assert len(set(ran)) == 1
    assert threading.get_ident() not in ran


async def test_what_work_raises_is_told_where_it_was_given_and_the_thread_works_on(thread: WorkThread) -> None:
    def fail() -> None:
        raise OSError("no disk")

    assert repr(await outcome(thread, fail)) == repr(OSError("no disk"))
    done: list[str] = []
    assert await outcome(thread, lambda: done.append("more")) is None
    assert done == ["more"]


async def test_the_loop_goes_on_meanwhile_and_who_closes_the_thread_waits_for_its_work_or_no_longer() -> None:
    began, end = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        began.set()
        end.wait(timeout=10)
        done.append("work")

    thread = WorkThread()
    thread(work, lambda _: done.append("then"))
    while not began.is_set():
        await anyio.lowlevel.checkpoint()
    assert not thread.close(lambda: done.append("last"), within_s=0)
    assert done == []
    end.set()
    assert thread.close()
    assert done == ["work", "last"]


async def test_signals_that_interrupt_the_thread_do_not_end_it() -> None:
    thread = WorkThread()
    before = signal.signal(signal.SIGURG, lambda *_: None)
    try:
        for _ in range(300):
            assert await outcome(thread, lambda: None) is None
            signal.pthread_kill(thread._thread.ident or 0, signal.SIGURG)
    finally:
        signal.signal(signal.SIGURG, before)
    done: list[str] = []
    assert thread.close(lambda: done.append("last"))
    assert done == ["last"]
