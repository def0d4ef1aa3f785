"""Command `airunner explain`: why a job does not start, what a running job does, or how a finished job ended.

`explain` asks for what the job's state needs, and returns a `Why`: of `causes` for a job that waits, of `status` for
one that runs, of `endings` for one that has ended.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from airunner.client.cli.clientcommand import JobArgument, JsonOption, client_command
from airunner.client.cli.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airunner.client.cli.causes import Why
    from airunner.client.client import Client
    from airunner.protocol.events import Event
    from airunner.protocol.job import Job

LINE_CHARS_MAX: Final = 200  # of the last line of output
STEPS: Final = ("JOB_LEASED", "GIT_CLONE_START", "GIT_CLONE_END", "PROCESS_START", "PROCESS_END")
_CONTROL: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")


@client_command()
async def explain_command(client: Client, console: Console, job: JobArgument, json: JsonOption = False) -> None:
    """Explain why a job does not start, what a running job does or how a finished job ended, and what would help.

    Says the cause in one line, and below it commands that would start or restart the job, or show more of it.
    """
    import msgspec

    from airunner.client.cli.jobname import job_id_of

    found = await client.get(await job_id_of(client, job))
    why = await explain(client, found)
    if json:
        console.out_json({"job_id": found.id, "state": found.state, **msgspec.to_builtins(why)})
        return
    console.out_text(f"job {found.id} {found.state}: {why.text}")
    for command in why.commands:
        console.out_line(f"    {command}")


async def explain(client: Client, job: Job) -> Why:
    """Explain a job's state. Raises the errors of `Client`."""
    from airunner.client.cli.waiting import why_it_waits

    if waits := await why_it_waits(client, job):
        return waits
    return await (_ended(client, job) if job.state.terminal else _running(client, job))


async def _running(client: Client, job: Job) -> Why:
    """Explain what a running job does: its phase, agent and last output."""
    from airunner.client.cli.causes import Cause, Why
    from airunner.client.cli.status import OVERDUE_MS, Progress
    from airunner.client.cli.wording import duration_text
    from airunner.client.logreader import LAST_EVENTS, last_events
    from airunner.protocol.printable import one_line
    from airunner.transport.ports import SYSTEM

    events = [event async for event in client.replay(job.id, kinds=STEPS)]
    output = await last_events(client, job, ("OUTPUT",))
    beat = await last_events(client, job, ("HEARTBEAT",), LAST_EVENTS)
    progress, now_ms = Progress(), SYSTEM.wall_ms()
    for event in sorted((*events, *output, *beat), key=lambda event: event.sequence):
        if event.attempt == job.attempt:
            progress.note(event, 0, max(0, now_ms - event.timestamp_ms))
    phases = {"starting": Cause.STARTING, "checking out": Cause.CHECKOUT, "running": Cause.RUNNING}
    line = last_line(event for event in output if event.attempt == job.attempt)
    text = progress.text(0)
    if job.cancel_requested_ms is not None:
        text += f"; cancel requested {duration_text(now_ms - job.cancel_requested_ms)} ago"
    async for agent in client.agents():
        if agent.name == job.agent and (agent.silent_ms or 0) > OVERDUE_MS:
            text += f"; the agent was last heard {duration_text(agent.silent_ms)} ago"
    return Why(
        cause=phases.get(progress.doing, Cause.ENDING),
        text=f"{text}: {one_line(line)}" if line else text,
        commands=(f"airunner monitor {job.id}",),
        agent=job.agent or "",
        since_ms=progress.began_ms or None,
        last_output=line,
    )


async def _ended(client: Client, job: Job) -> Why:
    """Explain how a job has ended, and what comes next."""
    from airunner.client.cli.causes import Cause, Why
    from airunner.client.cli.endings import ERROR_KINDS, how_ended, why_failed
    from airunner.client.logreader import last_events
    from airunner.protocol.events import ProcessEnd
    from airunner.protocol.job import JobState, Reason, Usage
    from airunner.protocol.printable import shell_line
    from airunner.protocol.replies import QueueMode

    log = await last_events(client, job, (*ERROR_KINDS, "PROCESS_END")) if job.attempt else ()
    ran = [event.body.duration_ms for event in log if isinstance(event.body, ProcessEnd)]
    result = job.result
    text = why_failed(job, log) or how_ended(job)
    if job.state is JobState.SKIPPED:
        from airunner.client.cli.dependencies import why_skipped

        text = await why_skipped(client, job)
    usage = (result.usage if result is not None else None) or Usage()
    lost = result is not None and result.reason is Reason.AGENT_LOST
    silent = not (lost or usage.stdout_bytes or usage.stderr_bytes)
    more = f"airunner monitor {job.id}" if silent else f"airunner logs {job.id} --tail 20"
    commands: tuple[str, ...] = (more,) if job.attempt else ()
    if job.state is not JobState.COMPLETED:
        commands = (f"airunner retry {job.id}", *commands)
        queue = await client.queue(job.spec.queue)
        if queue is not None and queue.mode is QueueMode.DRAINING:
            text += f"; queue {queue.queue} is draining, and accepts no retry"
            commands = (shell_line(("airunner", "resume", queue.queue)), *commands)
    agent = job.agent or ""
    return Why(
        cause=Cause.ENDED,
        text=text,
        commands=commands,
        agent=agent,
        since_ms=job.finished_ms,
        ran_ms=ran[-1] if ran else None,
    )


def last_line(log: Iterable[Event]) -> str:
    """Return the last line of output that is not empty, without colours; of a line that was overwritten, the rest."""
    from airunner.protocol.events import Output

    text = b"".join(event.body.data for event in log if isinstance(event.body, Output)).decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]", _CONTROL.sub("", text)) if line.strip()]
    return lines[-1][:LINE_CHARS_MAX] if lines else ""
