"""What a short job costs its agent and keeper, in counts: a slip is seen on any machine, however busy it is."""

from __future__ import annotations

import gc
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

from airunner.agent.attempt import attempt
from airunner.agent.attempt.supervisor import CommandEnd, Supervisor
from airunner.agent.launcher.local import ChildLauncher
from airunner.agent.workspace import workspaces
from airunner.protocol.fields import JobSpec
from airunner.protocol.requests import DequeueJob, PublishJobEvents
from airunner.transport.channel import Channel
from tests.agent.launcher.launching import children_of
from tests.agent.playing import Stage, staged
from tests.counting import counted_calls, needs_strace
from tests.virtualtime import real_time  # noqa: F401 - a fixture

JOBS: Final = 20
FUNCTIONS_MAX: Final = 320  # calls of functions of agent/ for a job: 310
CALLS: Final = {  # of other functions from these, in the standard library
    "open": 1,  # the spool
    "dup": 2,  # descriptors that are kept free for the output
    "write": 2,  # to the spool: its header, and all events of the job
    "lstat": 4,
    "scandir": 0,
    "pread": 0,
    "socket.send": 1,  # to the keeper
    "socket.recvmsg": 2,  # with the look whether the keeper still lives
    "_UnixSelectorEventLoop.add_reader": 0,  # a keeper's socket is watched as long as it is open
}
KEEPERS_SYSTEM_CALLS_MAX: Final = 35  # for a job: 32, of which some 15 are those of posix_spawn(3)


@pytest.fixture(name="stage")
async def busy_stage(tmp_path: Path, launcher: ChildLauncher, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """An agent that has run some jobs, with a workspace that is old, and time to wait for a short command."""
    monkeypatch.setattr(attempt, "SHORT_S", 10.0)
    monkeypatch.setattr(workspaces, "OLD_S", 0.0)
    async with staged(tmp_path, real=launcher) as stage:
        await run(stage, 3)
        yield stage


async def run(stage: Stage, jobs: int) -> None:
    """Run so many jobs of /bin/true, which are in the queue before the first one begins."""
    submitted = await stage.client.submit_many([JobSpec(command="/bin/true")] * jobs)
    for job in submitted:
        assert (await stage.kinds(job.id))[2:] == ["PROCESS_START", "PROCESS_END", "JOB_FINISHED"]


def of_the_agent(frame: FrameType, event: str, called: object) -> str | None:
    """Name calls of functions of agent/, and of each function that they call elsewhere."""
    return str(getattr(called, "__qualname__", event)) if "/airunner/agent/" in frame.f_code.co_filename else None


async def test_a_short_job_costs_an_agent_few_calls_and_no_folder(stage: Stage) -> None:
    with counted_calls(of_the_agent) as calls:
        await run(stage, JOBS)
    per_job = {name: round(calls[name] / JOBS, 1) for name in CALLS}
    assert per_job == pytest.approx(CALLS, abs=0.2)  # the first job of an idle agent is not among those of a queue
    assert calls["call"] / JOBS < FUNCTIONS_MAX


async def test_a_short_job_leaves_nothing_to_the_garbage_collector(stage: Stage) -> None:
    """Its task token and secrets would stay in memory until then, and the collections take time."""
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await run(stage, JOBS)
        gc.collect()
        left = Counter(type(each).__qualname__ for each in gc.garbage if "airunner.agent" in type(each).__module__)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert max(left.values(), default=0) < JOBS / 2, left  # the first job of an idle agent is not a short one


async def test_a_short_job_costs_two_requests_which_the_broker_receives_together(stage: Stage) -> None:
    passes = len(stage.wire.passes)
    await run(stage, JOBS)
    kinds = Counter(
        tuple(type(request) for request in received if isinstance(request, DequeueJob | PublishJobEvents))
        for received in stage.wire.passes[passes:]
    )
    assert kinds[PublishJobEvents, DequeueJob] >= JOBS - 2
    assert kinds[PublishJobEvents,] + kinds[DequeueJob,] <= 4  # as the queue begins and ends


async def test_the_start_of_a_lone_job_is_sent_before_its_slot_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    ask, supervise = Channel.ask, Supervisor.supervise

    async def asked(channel: Channel, request: Any, **options: Any) -> Any:
        steps.append(type(request).__name__)
        return await ask(channel, request, **options)

    async def supervised(*args: Any, **options: Any) -> CommandEnd:
        steps.append("supervise")
        return await supervise(*args, **options)

    monkeypatch.setattr(Channel, "ask", asked)
    monkeypatch.setattr(Supervisor, "supervise", supervised)
    await run(stage, 1)
    assert "PublishJobEvents" in steps[: steps.index("supervise")]


@contextmanager
def traced(pid: int) -> Iterator[list[int]]:
    """Count a process's system calls; the number is in the list after the block."""
    with subprocess.Popen(("strace", "-c", "-p", str(pid)), stderr=subprocess.PIPE, text=True) as tracing:
        assert tracing.stderr is not None
        if "attached" not in tracing.stderr.readline():
            pytest.skip("this process may not trace another")
        calls: list[int] = []
        yield calls
        tracing.send_signal(signal.SIGINT)
        *_, total = tracing.stderr.read().splitlines()
        calls.append(int(total.split()[3]))


@needs_strace
async def test_a_short_job_costs_its_keeper_few_system_calls(stage: Stage, launcher: ChildLauncher) -> None:
    [keeper] = children_of(launcher.pid)
    with traced(keeper) as calls:
        await run(stage, JOBS)
    assert calls[0] / JOBS < KEEPERS_SYSTEM_CALLS_MAX
