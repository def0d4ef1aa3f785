"""Commands `airunner certs …` and `airunner token`: keys and tokens from the command line.

Guarantees
- stdout carries only the result of the command, so `TOKEN=$(airunner token …)` works; everything else goes to stderr.
- No secret is printed, except the token of `airunner token` and the keys of `airunner certs export`.
- Errors are raised; `airunner`'s entry point prints them as one line, and exits with their code.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airunner.protocol.durations import duration_ms, of_flag
from airunner.protocol.errors import EXIT_UNHEALTHY, OperatorError
from airunner.protocol.names import NAME_EXPECTED, fits_name

if TYPE_CHECKING:
    from airunner.certs.home import Home
    from airunner.certs.machines import Machine

certs_app = typer.Typer(help="Manage the keys of this installation.", no_args_is_help=True)


@certs_app.command("init")
def init_command() -> None:
    """Make the missing keys: CURVE keys, the allow-list, the key pair for tokens. Existing keys stay unchanged.

    The keys are in $AIRUNNER_HOME/certs, and only you can read them.
    """
    from airunner.certs.init import init

    home = _own_home()
    report = init(home)
    for path in sorted(report.made):
        print(f"made {path}")
    if not report.made:
        print(f"nothing to make: all {len(report.kept)} files are in {home.certs}")


@certs_app.command("add")
def add_command(
    name: Annotated[str, typer.Argument(help="Name of the machine, unique on the allow-list.")],
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="Role: client, agent or both; separate with commas, or repeat. Or broker: for a fleet.",
            show_default="client",
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Tenant whose tokens the machine may present.", show_default="any tenant")
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            metavar="QUEUE",
            help="Queue that the machine may lease from, submit to and read; repeat for more.",
            show_default="all, for a client; required for an agent",
        ),
    ] = None,
    any_queue: Annotated[bool, typer.Option("--any-queue", help="Allow an agent to lease from every queue.")] = False,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="PUBLIC",
            help="Public key of the machine.",
            show_default="make a pair here; for a broker, this home's broker key",
        ),
    ] = None,
) -> None:
    """Add a machine to the allow-list. A running broker accepts it at once.

    Jobs that run as an agent's user can use the agent's key: limit it with --queue to the queues of these jobs.
    """
    from airunner.certs.allowlist import PeerRole
    from airunner.certs.machines import add
    from airunner.certs.principal import check_queue_names

    words = [word.strip() for word in ",".join(role or ["client"]).split(",")]
    try:
        roles = frozenset(PeerRole(word) for word in words)
    except ValueError as error:
        raise OperatorError(f"--role {','.join(words)!r}: use one or more of {','.join(PeerRole)}") from error
    if queue and any_queue:
        raise OperatorError("use --queue or --any-queue, not both")
    if PeerRole.AGENT in roles and not queue and not any_queue:
        raise OperatorError(
            f"which queues may {name} lease from? Use --queue QUEUE (repeat for more), or --any-queue for all: "
            "a job can use its agent's key to lease from every queue that the key allows"
        )
    queues = check_queue_names(queue) if queue else None
    machine = add(_own_home(), name, roles, tenant, None if key is None else key.encode(), queues)
    print(_table_row(machine))
    if machine.here or PeerRole.BROKER in roles:
        print(f"`airunner certs export {name}` makes the file to import on that machine", file=sys.stderr)


@certs_app.command("list")
def list_command(json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False) -> None:
    """List the machines that may connect to this broker."""
    from airunner.certs.machines import ignored, machines

    home = _own_home()
    for machine in machines(home):
        if json:
            from airunner.protocol.printable import json_line

            print(json_line(machine))
        else:
            print(_table_row(machine))
    for line in ignored(home):
        print(line, file=sys.stderr)


@certs_app.command("revoke")
def revoke_command(name: Annotated[str, typer.Argument(help="Name of the machine on the allow-list.")]) -> None:
    """Remove a machine from the allow-list, and its keys if made here. A running broker refuses its next request."""
    from airunner.certs.machines import revoke

    revoke(_own_home(), name)
    print(f"{name} is removed from the allow-list")


@certs_app.command("queue-key")
def queue_key_command(queue: Annotated[str, typer.Argument(metavar="QUEUE", help="Name of the queue.")]) -> None:
    """Make the key pair that seals a queue's secrets, and print the public key.

    Copy the secret key's file to the homes of the queue's agents, and to no other machine. Users who set secrets need
    the public key.
    """
    from airunner.certs.queuekeys import load_public, load_secret, make_queue_key, public_path, secret_path

    if not fits_name(queue):
        raise OperatorError(f"{queue!r} is not a queue name: expected {NAME_EXPECTED}")
    home = _own_home()
    if make_queue_key(home, queue):
        print(f"secret key, for the queue's agents only: {secret_path(home, queue)}", file=sys.stderr)
        print(f"public key, for users who set secrets: {public_path(home, queue)}", file=sys.stderr)
    load_secret(home, queue)
    print(load_public(public_path(home, queue), queue).decode())


@certs_app.command("doctor")
def doctor_command(
    token: Annotated[str | None, typer.Option(help="Token to check.", show_default="AIRUNNER_TOKEN")] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the token to check.", show_default="none")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Check the keys and the token of this installation; show how to fix each problem.

    This checks who may read each file, whether the halves of each pair belong together, and when the token expires.
    Exits with 78 if there is a problem.
    """
    from airunner.certs.checkup import check_keys
    from airunner.certs.findings import Severity, shown
    from airunner.certs.home import Home
    from airunner.protocol.printable import json_line

    if token is not None and token_file is not None:
        raise OperatorError("use --token or --token-file, not both")
    home = Home.from_environment(os.environ)
    bad = False
    for finding in check_keys(home, os.environ, time.time(), token=token, token_file=token_file):
        bad |= finding.severity is Severity.BAD
        print(json_line(finding) if json else shown(finding))
    raise typer.Exit(EXIT_UNHEALTHY if bad else 0)


@certs_app.command("export")
def export_command(
    name: Annotated[str, typer.Argument(help="Name of a machine whose keys were made here, or of the fleet.")],
    output: Annotated[
        Path | None, typer.Option(allow_dash=True, help="File to make, with mode 0600, or -.", show_default="stdout")
    ] = None,
    move: Annotated[
        bool,
        typer.Option("--move", help="Remove the secret key here: then only that machine can sign logs with it."),
    ] = False,
) -> None:
    """Export the keys that another machine needs as one file: its own pair, and the broker's public key.

    Of a name with the role broker: the broker's key pair, the allow-list, and the key that verifies tokens, for another
    broker of the fleet.
    """
    from airunner.certs.machines import export, forget
    from airunner.certs.secretfile import create

    home = _own_home()
    content = export(home, name)
    if move and (output is None or output == Path("-")):
        raise OperatorError("--move removes the key here: name the file that is to have it with --output FILE")
    if output is not None and output != Path("-"):
        if not create(output, content):
            raise OperatorError(f"{output} exists already: name another --output")
        if move:
            forget(home, name)
        print(f"made {output}: run `airunner certs import` with it on {name}, then delete it: it holds a secret key")
    elif sys.stdout.isatty():
        raise OperatorError("this would show a secret key on the terminal: use --output FILE, or a pipe")
    else:
        sys.stdout.write(content.decode())


@certs_app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="File made by `airunner certs export`.")],
    force: Annotated[bool, typer.Option("--force", help="Replace other keys that are already here.")] = False,
) -> None:
    """Import the keys in FILE: they identify this computer as the exported machine."""
    from airunner.certs.machines import import_keys

    home = _own_home()
    print(f"this machine is now {import_keys(home, file, force=force)}; its keys are in {home.certs}")


@certs_app.command("signers")
def signers_command() -> None:
    """Print the public keys with which `airunner verify` proves logs, of this machine and of the agents known here.

    Append the lines to certs/signers in the home of a user who verifies. An exported file carries them too.
    """
    from airunner.certs.signing import signer_lines, signers

    print(signer_lines(signers(_own_home())), end="")


def _table_row(machine: Machine) -> str:
    """Return the machine as one line of a table."""
    whose = f"tenant={machine.tenant}" if machine.tenant else "any tenant"
    where = "any queue" if machine.queues is None else f"queue={','.join(machine.queues)}"
    kept = "  keys are here" if machine.here else ""
    return f"{machine.name:<24} {','.join(machine.roles):<14} {whose:<20} {where:<20} {machine.fingerprint}{kept}"


def token_command(
    subject: Annotated[str, typer.Option(help="Name of the token's owner: a person, a machine, a pipeline.")],
    ttl: Annotated[str, typer.Option(help="Lifetime of the token, such as 900, 15m, 1h30m or 7d.")] = "1h",
    tenant: Annotated[str, typer.Option(help="Tenant whose jobs and queues the token gives access to.")] = "default",
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="Role: submit, read, work, admin; separate with commas, or repeat.",
            show_default="submit,read,work,admin",
        ),
    ] = None,
    signing_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="PEM file of the signing key.", show_default="JWT_SIGNING_KEY, or the home's key"
        ),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(metavar="QUEUE", help="Queue to give access to; repeat for more.", show_default="all"),
    ] = None,
    cache: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL",
            help="Label of caches that jobs of the owner save, or '*' for every label; repeat for more.",
            show_default="none: caches are restored and never saved",
        ),
    ] = None,
) -> None:
    """Print a token, signed with --signing-key, JWT_SIGNING_KEY or the home's key.

    Present it with --token or AIRUNNER_TOKEN. A token cannot be revoked: keep its lifetime short.
    """
    from airunner.certs.curve import is_carried
    from airunner.certs.principal import ALL_ROLES, check_cache_labels, check_queue_names, parse_roles
    from airunner.certs.secretfile import MissingFile
    from airunner.certs.tokenkeys import load_signing_key
    from airunner.certs.tokens import TokenSigner

    ttl_s = parse_ttl_s(ttl)
    roles = parse_roles(",".join(role)) if role is not None else ALL_ROLES
    home = _own_home()
    try:
        key = load_signing_key(os.environ, home, signing_key)
    except MissingFile as error:
        if signing_key is not None or not is_carried(home):
            raise
        raise OperatorError(
            "the key that signs tokens is not on this machine: run this on the broker's machine, and copy the token"
        ) from error
    signer = TokenSigner(key)
    now_s = time.time()
    queues = check_queue_names(queue) if queue else None
    labels = check_cache_labels(cache or ())
    token = signer.mint(
        subject=subject, tenant=tenant, roles=roles, queues=queues, caches=labels, ttl_s=ttl_s, now_s=now_s
    )
    print(token)


def parse_ttl_s(text: str) -> int:
    """Parse a lifetime such as `90`, `15m`, `1h30m` or `7d` into seconds; `TokenSigner` checks its bounds."""
    return of_flag("--ttl", duration_ms, text) // 1_000


def _own_home() -> Home:
    from airunner.certs.ownership import own_home

    return own_home(os.environ)
