"""Many jobs are changed a few at a time, and an interrupt leaves none half done without a word."""

from __future__ import annotations

import anyio
import pytest

from airunner.client.cli.bulk import GRACE_S, WORKERS, change_each
from airunner.client.cli.console import Console
from airunner.protocol.errors import NotFinished, NotFound

IDS = [f"{number}" for number in range(WORKERS + 5)]


async def test_all_are_changed_and_the_first_refusal_is_the_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    changed: list[str] = []
    running = most = 0

    async def change(job: str) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1
        if job in {"1", "2"}:
            raise NotFound if job == "1" else NotFinished("no")
        changed.append(job)
        return f"did {job}" if job == "3" else ""

    assert await change_each(Console(), "cancel", IDS, change) == NotFinished.exit_code
    assert (sorted(changed), most) == (sorted({*IDS} - {"1", "2"}), WORKERS)
    assert capfd.readouterr() == ("did 3\n", "airunner: job 2: no\n")
    assert await change_each(Console(), "cancel", [], change) == 0


@pytest.mark.parametrize(
    ("took_s", "said"),
    [
        (0, f"{WORKERS} of 21 jobs are done; the others"),
        (GRACE_S, "1 of 21 jobs are done; 15 were not answered yet;"),
    ],
)
async def test_an_interrupt_begins_no_change_and_waits_a_while_for_those_that_were_sent(
    took_s: float, said: str
) -> None:
    sent: list[str] = []
    console = Console()
    answered = anyio.Event()

    async def change(job: str) -> str:
        sent.append(job)
        if len(sent) < WORKERS:
            await answered.wait()
            return job
        group.cancel_scope.cancel()
        if not took_s:
            answered.set()
        return job

    before_s = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(change_each, console, "cancel", IDS, change)
    assert (sent, anyio.current_time() - before_s) == (IDS[:WORKERS], took_s)
    assert console.farewell.startswith(f"cancel: {said}")
