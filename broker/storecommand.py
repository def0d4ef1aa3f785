"""Commands `airunner backup` and `airunner store …`: make, back up, restore, check and copy a store.

- A backup file is always complete; a restore changes nothing until its backup is verified.
- Exit code 0: no fault. 1: the store or the backup has faults; `check` and `backup` print a line for each.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from airunner.protocol.errors import EXIT_IO, OperatorError

if TYPE_CHECKING:
    from airunner.broker.checking import StoreReport
    from airunner.broker.store.sqlite.copying import Progress
    from airunner.broker.storecopy import CopyProgress

_MIB: Final = 1_048_576
_PAGE_BYTES: Final = 4_096  # SQLite's default page size, which stores have
_JOBS_SHOWN: Final = 100  # jobs between two updates of the display
_COPIED: Final = ("jobs", "events", "idempotency records", "secrets", "queue modes")

store_app = typer.Typer(
    help="Make, restore, check and copy the broker's store, while the broker is stopped.", no_args_is_help=True
)

StoreOption = Annotated[
    str | None,
    typer.Option(help="Store, as sqlite:///PATH.", show_default="sqlite:///$AIRUNNER_HOME/broker/airunner.db"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the report as one JSON object on stdout.")]


def backup_command(
    to: Annotated[Path, typer.Argument(metavar="TO", help="File to create, with mode 0600.")],
    store: StoreOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace TO if it exists.")] = False,
    json: JsonOption = False,
) -> None:
    """Copy the broker's store to a file and verify the copy; the broker may run meanwhile.

    Run it on the broker's machine as the broker's user, or as root. The copy contains all jobs, logs and sealed secrets
    as they are at the end of the copying. The keys in $AIRUNNER_HOME/certs are not in the store: back them up too.
    Restore the copy with `airunner store restore`.
    """
    from airunner.broker.backup import back_up

    bar = _Bar()
    try:
        report = back_up(_path(store), to, bar.show, force=force)
    finally:
        bar.clear()
    _print(report, str(to), to.stat().st_size, "backed up to", json=json)


@store_app.command("restore")
def restore_command(
    backup: Annotated[Path, typer.Argument(metavar="FROM", help="File that `airunner backup` has created.")],
    store: StoreOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing store, which is renamed to STORE.before-restore.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Verify a backup and replace the store with it, while the broker is stopped.

    Start the broker afterwards. Jobs that ran when the backup was made run again once their leases have expired.
    """
    from airunner.broker.backup import restore

    path = _path(store)
    report = restore(backup, path, force=force)
    _print(report, str(path), path.stat().st_size, "restored to", json=json)


@store_app.command("check")
def check_command(
    store: Annotated[
        str | None,
        typer.Option(
            help="Store, as sqlite:///PATH, postgresql://… or aws:TABLE….",
            show_default="sqlite:///$AIRUNNER_HOME/broker/airunner.db",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check the whole store and list each fault with its job. Exits with 74 if there is a fault.

    Stop the broker of a SQLite store first, or check a backup of it. Brokers on PostgreSQL or DynamoDB may run
    meanwhile: the first is checked as it was at one instant, the second job by job.
    """
    from airunner.broker.checking import check_database, check_store, check_table
    from airunner.broker.store.awsurl import is_aws
    from airunner.broker.store.open import is_postgres

    if store is not None and is_postgres(store):
        _print(*check_database(store), "checked", json=json)
    elif store is not None and is_aws(store):
        _print(*check_table(store), "checked", json=json)
    else:
        path = _path(store)
        _print(check_store(path), str(path), path.stat().st_size, "checked", json=json)


@store_app.command("copy")
def copy_command(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Store to copy, as sqlite:///PATH or postgresql://….")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Store to create: a file, or an empty database.")],
    json: JsonOption = False,
) -> None:
    """Copy a store into a new one of any kind, and compare both, while no broker uses either.

    All is copied: jobs with their numbers, logs, idempotency records, sealed secrets and queue modes. A copy that is
    interrupted is not used by any broker. FROM is not changed.
    """
    from airunner.broker.store.open import is_postgres, path_of
    from airunner.broker.storecopy import copy_store, identity_of_copy
    from airunner.certs.home import Home

    for label, url in (("FROM", source), ("TO", target)):
        if not is_postgres(url):
            path_of(url, label)
    home = Home.from_environment(os.environ)
    bar = _Bar()
    try:
        report = copy_store(source, target, partial(identity_of_copy, home), bar.show_jobs)
    finally:
        bar.clear()
    if json:
        from airunner.protocol.printable import json_line

        print(json_line(report._asdict()))
    else:
        kinds = ", ".join(f"{number:,} {kind}" for number, kind in zip(report, _COPIED, strict=True))
        print(f"copied {kinds}; all equal")


@store_app.command("init")
def init_command(
    store: Annotated[str, typer.Option(help="PostgreSQL database, as postgresql://OWNER@HOST/DATABASE.")],
    grant_to: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Role of the brokers, which may then use the store.")
    ] = None,
) -> None:
    """Make the schema of a PostgreSQL store, or upgrade it, as its owner.

    A broker whose role may create a schema does it by itself. Run this as another role, which owns the store, so that
    the role of the brokers can neither change nor drop it. Running it again changes nothing.
    """
    from airunner.broker.store.open import make_postgres_store

    print(make_postgres_store(store, grant_to))


class _Bar:
    """Progress display of a copy, on stderr if that is a terminal."""

    def __init__(self) -> None:
        self._shown = False

    def show(self, progress: Progress) -> None:
        """Show the progress of a backup."""
        copied, size = (pages * _PAGE_BYTES / _MIB for pages in progress)
        self._show(f"copied {copied:,.0f} of {size:,.0f} MiB")

    def show_jobs(self, progress: CopyProgress) -> None:
        """Show the progress of a copy to another store."""
        if progress.jobs % _JOBS_SHOWN == 0:
            self._show(f"{progress.doing} {progress.jobs:,} of {progress.jobs_max:,} jobs")

    def _show(self, words: str) -> None:
        if sys.stderr.isatty():
            print(f"\r{words}", end="", file=sys.stderr, flush=True)
            self._shown = True

    def clear(self) -> None:
        """Clear the display."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _path(store: str | None) -> Path:
    """Find the path of the store's file. Raises `OperatorError`: the store is not a file."""
    from airunner.broker.store.open import is_postgres, path_of
    from airunner.certs.home import Home

    if store is not None and is_postgres(store):
        raise OperatorError("a store on PostgreSQL is backed up with pg_dump and restored with pg_restore")
    path = Home.from_environment(os.environ).store if store is None else path_of(store)
    if path is None:
        raise OperatorError("a store in memory has no file; name a store's file with --store sqlite:///PATH")
    return path.absolute()


def _print(report: StoreReport, named: str, size_bytes: int, done: str, *, json: bool) -> None:
    """Print a report of the store `named`. Raises `typer.Exit` with 74 if it lists a fault."""
    if json:
        from airunner.protocol.printable import json_line

        faults = [{"job_id": fault.job_id, "words": fault.words} for fault in report.faults]
        sums = {"jobs": report.jobs, "events": report.events, "bytes": size_bytes}
        print(json_line({"path": named, **sums, "faults": faults}))
    else:
        sound = "verified" if not report.faults else f"{len(report.faults)} faults"
        sums_said = f"{report.jobs:,} jobs, {report.events:,} events, {size_bytes / _MIB:,.1f} MiB"
        print(f"{done} {named}: {sums_said}, {sound}")
        for fault in report.faults:
            print(f"job {fault.job_id}: {fault.words}" if fault.job_id else fault.words, file=sys.stderr)
    if report.faults:
        raise typer.Exit(EXIT_IO)
