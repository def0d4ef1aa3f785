"""Command `airunner monitor`: shows the events of jobs, all or of some kinds, with or without timestamps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from airunner.client.cli.clientcommand import JobsArgument, JsonOption, Work, client_command
from airunner.client.cli.console import Console, JobConsole
from airunner.client.cli.kinds import Choice, kinds_of
from airunner.client.cli.playback import SPEED_MAX, SPEED_MIN, schedule_of
from airunner.client.cli.stamps import Stamps, Timestamps
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import MILLISECONDS_MAX

if TYPE_CHECKING:
    from airunner.client.client import Client


@client_command("quiet", "raw")
def monitor_command(
    console: Console,
    jobs: JobsArgument,
    from_sequence: Annotated[
        int,
        typer.Option(min=0, max=MILLISECONDS_MAX, help="Number of the first event to show; events count from 1."),
    ] = 1,
    from_timestamp: Annotated[
        str | None,
        typer.Option(
            metavar="INSTANT",
            help="Show events from this time on: 2027-01-31T03:00:00Z, 10m for ten minutes ago, or ms since the epoch.",
            show_default="none",
        ),
    ] = None,
    events: Annotated[
        Choice | None,
        typer.Option(
            case_sensitive=False,
            help="Show all events, only the job's output, or only what happens to the job: its lifecycle.",
            show_default="all",
        ),
    ] = None,
    event_filter: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND,...", help="Show only events of these kinds; may be repeated.", show_default="all"),
    ] = None,
    timestamps: Annotated[
        Timestamps | None,
        typer.Option(
            metavar="[=clock|relative|full]",
            case_sensitive=False,
            help="Put a timestamp before each line: clock, [HH:MM:SS]; relative, [+3.0s] since the command began; or "
            "full, 2027-01-31T03:00:00.000Z.",
            show_default="none",
        ),
    ] = None,
    playback: Annotated[
        bool, typer.Option("--playback", help="Play a finished job's log with the timing that it had.")
    ] = False,
    speed: Annotated[
        float | None,
        typer.Option(
            metavar="FACTOR",
            min=SPEED_MIN,
            max=SPEED_MAX,
            help="Play as many times faster: 4, or 0.5 for half as fast.",
            show_default="1",
        ),
    ] = None,
    idle_max: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Cut longer pauses to this while playing: 2s.", show_default="no limit"),
    ] = None,
    json: JsonOption = False,
) -> Work:
    """Show a job's events, stored ones first and then live ones, to its end; exit with its exit code as `submit` does.

    With --events or --event-filter the exit code is still the job's. Of several jobs each line begins with the job's
    name, or its id; the exit code is 0 if all are COMPLETED, and otherwise that of the first that was not.
    """
    from airunner.client.cli.instants import past_ms
    from airunner.client.cli.jobname import job_id_of
    from airunner.client.cli.prefixes import prefixed
    from airunner.client.cli.printing import ConsolePrinter, JsonPrinter
    from airunner.client.cli.watching import LogPart, play_back, watch, watch_all
    from airunner.transport.ports import SYSTEM

    if json and timestamps is not None:
        raise OperatorError("--timestamps is for the console: with --json each event has its timestamp_ms")
    schedule = schedule_of(speed, idle_max, len(jobs), playback=playback)
    kinds = kinds_of(events, event_filter)
    since_ms = past_ms("--from-timestamp", from_timestamp, SYSTEM.wall_ms())

    def printer_to(shown: JobConsole) -> JsonPrinter | ConsolePrinter:
        if json:
            return JsonPrinter(shown, kinds)
        return ConsolePrinter(shown, kinds, None if timestamps is None else Stamps(timestamps))

    part: LogPart = {"from_sequence": max(1, from_sequence), "from_timestamp_ms": since_ms}
    if schedule is None:  # a playback needs the times of all events
        part["kinds"] = (*kinds, "PROCESS_START") if kinds and timestamps is Timestamps.RELATIVE else kinds

    async def run(client: Client) -> int:
        if len(jobs) > 1:
            consoles = await prefixed(client, console, jobs)
            shown = {job_id: (printer_to(own).show, own) for job_id, own in consoles.items()}
            return await watch_all(client, shown, console, **part)
        console.job_id = job_id = await job_id_of(client, jobs[0])
        show = printer_to(console).show
        if schedule is not None:
            return await play_back(client, job_id, show, console, schedule, **part)
        return await watch(client, job_id, show, console, status=not json and not kinds, **part)

    return run
