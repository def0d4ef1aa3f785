"""Command `airunner monitor`: shows the events of a job, all or of some kinds, with or without timestamps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from airunner.client.cli.clientcommand import JobArgument, JsonOption, Work, client_command
from airunner.client.cli.console import Console
from airunner.client.cli.stamps import Stamps, Timestamps
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import EVENT_KINDS
from airunner.protocol.names import MILLISECONDS_MAX

if TYPE_CHECKING:
    from airunner.client.client import Client


@client_command("quiet", "raw")
def monitor_command(
    console: Console,
    job: JobArgument,
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
    json: JsonOption = False,
) -> Work:
    """Show a job's events, stored ones first and then live ones, to its end; exit with its exit code as `submit` does.

    With --event-filter the broker leaves out most other events; the exit code is still the job's.
    """
    from airunner.client.cli.instants import past_ms
    from airunner.client.cli.jobname import job_id_of
    from airunner.client.cli.printing import ConsolePrinter, JsonPrinter
    from airunner.client.cli.watching import watch
    from airunner.transport.ports import SYSTEM

    if json and timestamps is not None:
        raise OperatorError("--timestamps is for the console: with --json each event has its timestamp_ms")
    kinds = kinds_of(event_filter)
    since_ms = past_ms("--from-timestamp", from_timestamp, SYSTEM.wall_ms())
    stamps = None if timestamps is None else Stamps(timestamps)
    printer = JsonPrinter(console, kinds) if json else ConsolePrinter(console, kinds, stamps)
    needed = (*kinds, "PROCESS_START") if kinds and timestamps is Timestamps.RELATIVE else kinds

    async def run(client: Client) -> int:
        console.job_id = await job_id_of(client, job)
        return await watch(
            client,
            console.job_id,
            printer.show,
            console,
            from_sequence=max(1, from_sequence),
            from_timestamp_ms=since_ms,
            kinds=needed,
            status=not json and not kinds,
        )

    return run


def kinds_of(words: Sequence[str] | None) -> tuple[str, ...]:
    """Parse kinds of events, such as `OUTPUT,process-end`, in any case. Raises `OperatorError` for an unknown kind."""
    kinds = [word.strip().upper().replace("-", "_") for word in ",".join(words or ()).split(",") if word.strip()]
    wrong = [kind for kind in kinds if kind not in EVENT_KINDS]
    if wrong or (words and not kinds):
        raise OperatorError(
            f"--event-filter {(wrong or ['is empty'])[0]}: the kinds of events are {', '.join(EVENT_KINDS)}"
        )
    return tuple(dict.fromkeys(kinds))
