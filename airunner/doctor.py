"""Health check `airunner doctor`: checks what airunner needs on this machine, and prints how to fix what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from airunner.certs.findings import Finding, Severity, shown
from airunner.client.cli.clientcommand import BrokerOption, JsonOption, TokenOption, timeout_of
from airunner.protocol.errors import EXIT_UNHEALTHY, OperatorError, PeerError
from airunner.protocol.printable import json_line

if TYPE_CHECKING:
    from airunner.certs.home import Home

GIT_OLDEST: Final = (2, 31)
ROOM_BYTES: Final = 1 << 30  # of free disk space; less is reported
BROKER_S: Final = 3.0  # seconds to wait for a broker; --connect-timeout overrides them
ConnectTimeoutOption = Annotated[
    str | None,
    typer.Option("--connect-timeout", metavar="SECONDS", help="How long to wait for a broker.", show_default="3"),
]


StoreOption = Annotated[
    str | None,
    typer.Option(help="Store of several brokers to check too: postgresql://… or aws:TABLE….", show_default="none"),
]


def doctor_command(
    json: JsonOption = False,
    broker: BrokerOption = None,
    token: TokenOption = None,
    connect_timeout: ConnectTimeoutOption = None,
    store: StoreOption = None,
) -> None:
    """Check what airunner needs on this machine. Exits with 78 if there is a problem."""
    from airunner.certs.home import Home

    bad = False
    home = Home.from_environment(os.environ)
    stores = () if store is None else _store(store)
    for finding in (*_machine(), *_home(home), *stores, _broker(home, broker, token, timeout_of(connect_timeout))):
        bad |= finding.severity is Severity.BAD
        typer.echo(json_line(finding) if json else shown(finding))
    raise typer.Exit(EXIT_UNHEALTHY if bad else 0)


def _machine() -> Iterator[Finding]:
    linux = sys.platform == "linux"
    message = "Linux" if linux else f"{sys.platform}: agents need Linux; this machine can submit and monitor"
    yield Finding("system", Severity.GOOD if linux else Severity.FAIR, message)
    yield Finding("python", Severity.GOOD, sys.version.split()[0])
    yield _git()
    yield _groups()


def _git() -> Finding:
    program = shutil.which("git")
    if program is None:
        return Finding("git", Severity.BAD, "not found: install it, or agents cannot check out repositories")
    said = subprocess.run((program, "--version"), capture_output=True, text=True, check=False).stdout.split()  # noqa: S603 - git
    version = said[2] if len(said) > 2 else "unknown"  # noqa: PLR2004 - git version NUMBER
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < GIT_OLDEST:
        oldest = ".".join(map(str, GIT_OLDEST))
        return Finding("git", Severity.BAD, f"{version} is too old: {oldest} or newer is needed")
    return Finding("git", Severity.GOOD, version)


def _groups() -> Finding:
    from airunner.agent.launcher.child.cgroup import Limits, missing_controllers, own_group

    group = own_group()
    if group is None:
        return Finding(
            "control groups",
            Severity.FAIR,
            "none is writable: a job's processes are found by session and subreaper, and its memory has no limit",
        )
    missing = missing_controllers(group, Limits(1, 1))
    bounded = f"no limits on {' and '.join(missing)}" if missing else "memory and processes can be limited"
    return Finding("control groups", Severity.GOOD, f"each job in its own group below {group}; {bounded}")


def _home(home: Home) -> Iterator[Finding]:
    from airunner.certs.ownership import home_fault

    if reason := home_fault(home):
        yield Finding("home", Severity.BAD, reason)
        return
    if not home.root.is_dir():
        yield Finding(
            "home", Severity.FAIR, f"{home.root} does not exist yet: `airunner up` or `airunner certs init` makes it"
        )
        return
    writable = os.access(home.root, os.R_OK | os.W_OK | os.X_OK)
    yield Finding(
        "home", Severity.GOOD if writable else Severity.BAD, f"{home.root}{'' if writable else ' is not writable'}"
    )
    yield _keys(home)
    yield _jobs(home)
    room_bytes = shutil.disk_usage(home.root).free
    message = f"{room_bytes / (1 << 30):.1f} GiB free"
    yield Finding("disk", Severity.GOOD if room_bytes >= ROOM_BYTES else Severity.FAIR, message)


def _jobs(home: Home) -> Finding:
    """Check whether an agent on this home runs jobs as another user, so that they cannot read the home's keys."""
    from airunner.agent.workspace.jobuser import RUN_AS_VARIABLE, exposed_keys

    if named := os.environ.get(RUN_AS_VARIABLE):
        return Finding("jobs", Severity.GOOD, f"an agent started here runs jobs as {named} ({RUN_AS_VARIABLE})")
    return Finding("jobs", Severity.FAIR, f"without --run-as, {exposed_keys(home)}")


def _keys(home: Home) -> Finding:
    """Check the keys, and return the first problem."""
    from airunner.certs.checkup import check_keys

    findings = list(check_keys(home, os.environ, time.time()))
    bad = [finding for finding in findings if finding.severity is Severity.BAD]
    if not bad:
        return Finding("keys", Severity.GOOD, str(home.certs))
    more = f"; {len(bad) - 1} more, see `airunner certs doctor`" if len(bad) > 1 else ""
    return Finding("keys", Severity.BAD, bad[0].message + more)


def _store(url: str) -> Iterator[Finding]:
    """Check a store of several brokers: whether it can be used, and whether it may lose acknowledged work."""
    from airunner.broker.checking import inspect_store

    try:
        warnings = inspect_store(url, lambda: time.time_ns() // 1_000_000)
    except OperatorError as error:
        yield Finding("store", Severity.BAD, error.message)
    else:
        yield from (Finding("store", Severity.FAIR, warning) for warning in warnings)
        if not warnings:
            yield Finding("store", Severity.GOOD, "it can be used, and keeps what it has acknowledged")


def _broker(home: Home, broker: list[str] | None, token: str | None, timeout_s: float | None) -> Finding:
    import anyio

    from airunner.client.client import Client
    from airunner.transport.patience import Patience

    async def ask() -> None:
        patience = Patience(timeout_s or BROKER_S, timeout_s or BROKER_S)  # a broker without its store may be heard
        async with Client(broker, token=token, home=home.root, patience=patience) as client:
            await client.list_page(page_size=1)

    try:
        anyio.run(ask)
    except (OperatorError, PeerError) as error:
        return Finding("broker", Severity.FAIR, str(error))
    return Finding("broker", Severity.GOOD, "it replies, and accepts our key and token")
