"""Command `airunner verify`: proves that a job's log is what its agents have written, event by event."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from airunner.client.cli.clientcommand import JobArgument, JsonOption, client_command
from airunner.client.cli.console import Console
from airunner.client.cli.export import sink
from airunner.protocol.errors import EXIT_UNHEALTHY, EXIT_WRONG_STATE, OperatorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airunner.client.attemptcheck import AttemptCheck
    from airunner.client.client import Client
    from airunner.client.logcheck import LogCheck, SavedHead

HEAD_BYTES_MAX: Final = 1 << 28  # of a file with a head: 6 bytes for each event
SIGNERS_BYTES_MAX: Final = 1 << 20


@client_command()
async def verify_command(
    client: Client,
    console: Console,
    job: JobArgument,
    save_head: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the log's head to FILE: it stands for every event so far."),
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also compare the log with a head that was saved before."),
    ] = None,
    signers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Public keys of agents to trust, as `airunner certs signers` prints them.",
            show_default="those that this home knows",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Verify a job's log: it is complete, and what the agents have signed, event by event.

    Each event that is changed, missing, doubled or added is named by its sequence. Exits with 0 if the log is true,
    with 65 if it is not, and with 78 if nothing is wrong but a signature is missing or of an unknown key.

    The job itself is not signed: this proves what was written in it and how it ended, and not which command wrote it.
    """
    from airunner.client.cli.jobname import job_id_of

    console.job_id = job_id = await job_id_of(client, job)
    saved = None if head is None else _saved(head, job_id)
    known = _signers(signers)
    check = await client.check_log(job_id, saved)
    unproven = check.unproven(known) if saved is None or saved.sequence < check.head.sequence else []
    if json:
        console.out_json(_object(check, known, unproven))
    else:
        _say(console, check, known, unproven)
    if save_head is not None and not check.faults:
        import msgspec

        with sink(save_head, console.out) as put:
            put(msgspec.json.format(msgspec.json.encode(check.head)) + b"\n")
    if check.faults or unproven:
        raise typer.Exit(EXIT_WRONG_STATE if check.faults else EXIT_UNHEALTHY)


def _saved(path: Path, job_id: str) -> SavedHead:
    """Read a saved head. Raises `OperatorError`: it is none, or of another job."""
    from airunner.client.logcheck import parse_head

    content = _read("--head", path, HEAD_BYTES_MAX, "`airunner verify JOB --save-head FILE` writes a head")
    try:
        saved = parse_head(content, str(path))
    except ValueError as error:
        raise OperatorError(f"--head {error}; `airunner verify {job_id} --save-head FILE` writes one") from error
    if saved.job_id != job_id:
        raise OperatorError(f"--head {path} is the head of job {saved.job_id}, not of {job_id}")
    return saved


def _signers(path: Path | None) -> Mapping[bytes, str]:
    from airunner.certs.home import Home
    from airunner.certs.signing import parse_signers, signers

    if path is None:
        return signers(Home.from_environment(os.environ))
    content = _read("--signers", path, SIGNERS_BYTES_MAX, "a line is: PUBLIC-KEY NAME")
    return parse_signers(content.decode("utf-8-sig", errors="replace"), str(path))


def _read(flag: str, path: Path, bytes_max: int, remark: str) -> bytes:
    """Read the file of an option, or what `<(…)` of a shell writes. Raises `OperatorError`."""
    from airunner.client.cli.jobfile import read_bounded

    if path.is_fifo() and path.parent != Path("/dev/fd"):  # to open one without a writer waits, deaf to signals
        raise OperatorError(f"{flag}: {path} is a named pipe; write it to a file first")
    return read_bounded(flag, str(path), bytes_max, remark)


def _say(console: Console, check: LogCheck, known: Mapping[bytes, str], unproven: list[str]) -> None:
    """Print the result in words."""
    for attempt in check.attempts:
        console.out_line(_attempt_text(attempt, known))
    for fault in check.faults:
        console.out_line(fault.text)
    if check.more_faults:
        console.out_line(f"and {check.more_faults:,} more")
    for line in unproven:
        console.out_line(line)
    if check.faults:
        verdict = "the log is not what was written"
    elif unproven:
        verdict = "nothing is wrong with the log, but it is not proven"
    else:
        verdict = "the log is true (the job's command is not signed)"
    so_far = "" if check.finished else f"; the job is {check.job.state}: this is its log so far"
    console.out_line(f"{verdict}: {check.events:,} events{so_far}")


def _attempt_text(attempt: AttemptCheck, known: Mapping[bytes, str]) -> str:
    name = f"attempt {attempt.attempt} on {attempt.agent}, {attempt.events:,} events"
    ended = f", {attempt.over}" if attempt.over else ""
    if not attempt.signer:
        return f"{name}{ended}: not signed"
    whose = f"the key of {known[attempt.signer]}" if attempt.signer in known else "an unknown key"
    rest = "" if attempt.complete else f", the {attempt.events - attempt.signed:,} behind are not"
    return f"{name}{ended}: {attempt.signed:,} signed with {whose}{rest}"


def _object(check: LogCheck, known: Mapping[bytes, str], unproven: list[str]) -> dict[str, Any]:
    """Return the result as a JSON object."""
    from airunner.certs.curve import text_key

    return {
        "job_id": check.job.id,
        "verified": not check.faults and not unproven,
        "finished": check.finished is not None,
        "events": check.events,
        "head": check.head.head,
        "attempts": [
            {
                "attempt": attempt.attempt,
                "agent": attempt.agent,
                "events": attempt.events,
                "signed": attempt.signed,
                "complete": attempt.complete,
                "signer": known.get(attempt.signer),
                "key": text_key(attempt.signer) if attempt.signer else None,
            }
            for attempt in check.attempts
        ],
        "faults": [{**fault._asdict(), "text": fault.text} for fault in check.faults],
        "more_faults": check.more_faults,
        "unproven": unproven,
    }
