"""`airunner certs …` and `airunner token`: keys and tokens from the command line.

Laws
- What a command is asked for is all that stands on stdout, so `TOKEN=$(airunner token …)` works; whatever else
  there is to say goes to stderr.
- No secret is printed, save the token that was asked for.
- Errors are raised; the composition root prints their line and exits with their code.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airunner.protocol.durations import duration_ms
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import NAME_CHARS_MAX, fits_name

if TYPE_CHECKING:
    from airunner.certs.machines import Machine

certs_app = typer.Typer(help="The keys of this installation.", no_args_is_help=True)


@certs_app.command("init")
def init_command() -> None:
    """Make whatever is missing: CURVE keys, the allow-list, the pair for tokens. What is there stays.

    They lie in $AIRUNNER_HOME/certs, and only you may read them.
    """
    from airunner.certs.init import init
    from airunner.certs.ownership import own_home

    home = own_home(os.environ)
    report = init(home)
    for path in sorted(report.made):
        print(f"made {path}")
    if not report.made:
        print(f"nothing to make: all {len(report.kept)} files are in {home.certs}")


@certs_app.command("add")
def add_command(
    name: Annotated[str, typer.Argument(help="What the machine is called; it is on the list once.")],
    role: Annotated[
        list[str] | None,
        typer.Option(help="What it may be, of client,agent; with commas, or repeated.", show_default="client"),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose tokens it may present; without, anybody's.")] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            metavar="QUEUE",
            help="A queue that it may lease from, submit to and read; repeat it for more.",
            show_default="all, for a client; an agent has to say",
        ),
    ] = None,
    any_queue: Annotated[bool, typer.Option("--any-queue", help="Let an agent lease from every queue.")] = False,
    key: Annotated[
        str | None, typer.Option(metavar="PUBLIC", help="Its own public key; without, a pair is made here.")
    ] = None,
) -> None:
    """Let a machine in. A running broker takes it up at once.

    What runs on an agent may use its key: bind it with --queue to the queues whose jobs it is meant to run.
    """
    from airunner.certs.allowlist import PeerRole
    from airunner.certs.machines import add
    from airunner.certs.ownership import own_home
    from airunner.certs.principal import check_queue_names

    words = [word.strip() for word in ",".join(role or ["client"]).split(",")]
    try:
        roles = frozenset(PeerRole(word) for word in words)
    except ValueError as error:
        raise OperatorError(f"--role {','.join(words)!r}: give one or both of {','.join(PeerRole)}") from error
    if queue and any_queue:
        raise OperatorError("give --queue or --any-queue, not both")
    if PeerRole.AGENT in roles and not queue and not any_queue:
        raise OperatorError(
            f"which queues may {name} lease from? Give --queue QUEUE (repeat it for more), or --any-queue for all: "
            "a job could use its agent's key to lease from every queue that it opens"
        )
    queues = check_queue_names(queue) if queue else None
    home = own_home(os.environ)
    machine = add(home, name, roles, tenant, None if key is None else key.encode(), queues)
    print(_told(machine))
    if machine.here:
        print(f"`airunner certs export {name}` makes the file that it needs", file=sys.stderr)


@certs_app.command("list")
def list_command(json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False) -> None:
    """List the machines that may connect to this broker."""
    from airunner.certs.allowlist import COMPLAINTS_MAX
    from airunner.certs.machines import ignored, machines
    from airunner.certs.ownership import own_home

    home = own_home(os.environ)
    for machine in machines(home):
        if json:
            from airunner.protocol.jsonline import json_line

            print(json_line(machine))
        else:
            print(_told(machine))
    wrong = ignored(home)
    for number, why in wrong[:COMPLAINTS_MAX]:
        print(f"{home.allowed_clients}:{number}: {why}; the line is ignored", file=sys.stderr)
    if len(wrong) > COMPLAINTS_MAX:
        print(f"{home.allowed_clients}: {len(wrong) - COMPLAINTS_MAX} more lines are ignored", file=sys.stderr)


@certs_app.command("revoke")
def revoke_command(name: Annotated[str, typer.Argument(help="The machine's name on the list.")]) -> None:
    """Let a machine in no more. A running broker refuses it from its next request on."""
    from airunner.certs.machines import revoke
    from airunner.certs.ownership import own_home

    revoke(own_home(os.environ), name)
    print(f"{name} is off the allow-list")


@certs_app.command("queue-key")
def queue_key_command(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.")],
) -> None:
    """Make the keys that a queue's secrets are sealed with, and print the public one.

    The secret half is for the queue's agents alone: copy its file to their homes. The public half is for those who
    set secrets.
    """
    from airunner.certs.ownership import own_home
    from airunner.certs.queuekeys import load_public, load_secret, make_queue_key, public_path, secret_path

    if not fits_name(queue):
        raise OperatorError(
            f"{queue!r} is no name of a queue: expected 1 to {NAME_CHARS_MAX} of letters, digits, _.@:/+-"
        )
    home = own_home(os.environ)
    if make_queue_key(home, queue):
        print(f"made {secret_path(home, queue)}, for the queue's agents alone,", file=sys.stderr)
        print(f"and {public_path(home, queue)}, for those who set secrets:", file=sys.stderr)
    load_secret(home, queue)
    print(load_public(public_path(home, queue), queue).decode())


@certs_app.command("doctor")
def doctor_command(
    token: Annotated[str | None, typer.Option(help="A token to look at; AIRUNNER_TOKEN too.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with one, as agents take it.", show_default="none")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Tell what is wrong with the keys of this installation and its token, and what to do. Exits with 1 if anything is.

    It looks at who may read each file, at halves that do not belong together, and at when the token ends.
    """
    import time

    from airunner.certs.checkup import check_keys
    from airunner.certs.findings import Verdict, shown
    from airunner.certs.home import Home
    from airunner.protocol.jsonline import json_line

    home = Home.from_environment(os.environ)
    bad = False
    for finding in check_keys(home, os.environ, time.time(), token=token, token_file=token_file):
        bad |= finding.verdict is Verdict.BAD
        print(json_line(finding) if json else shown(finding))
    raise typer.Exit(int(bad))


@certs_app.command("export")
def export_command(
    name: Annotated[str, typer.Argument(help="A machine whose keys were made here.")],
    output: Annotated[Path | None, typer.Option(help="The file to make, 0600; without, it goes to stdout.")] = None,
) -> None:
    """Make the one file that another machine needs: its keys, and the broker's public one."""
    from airunner.certs.machines import export
    from airunner.certs.ownership import own_home
    from airunner.certs.secretfile import create

    content = export(own_home(os.environ), name)
    if output is not None:
        if not create(output, content):
            raise OperatorError(f"{output} is there already: name another --output")
        print(f"made {output}; `airunner certs import` takes it there. It is a secret: carry it so, and remove it")
    elif sys.stdout.isatty():
        raise OperatorError("this is a secret, which a terminal would show: give --output FILE, or a pipe")
    else:
        sys.stdout.write(content.decode())


@certs_app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="What `airunner certs export` has made.")],
    force: Annotated[bool, typer.Option("--force", help="Replace other keys that are here.")] = False,
) -> None:
    """Make this machine the one in FILE."""
    from airunner.certs.machines import take_in
    from airunner.certs.ownership import own_home

    home = own_home(os.environ)
    print(f"this is {take_in(home, file, force=force)} now; its keys are in {home.certs}")


def _told(machine: Machine) -> str:
    """One line for people."""
    whose = f"tenant={machine.tenant}" if machine.tenant else "any tenant"
    where = "any queue" if machine.queues is None else f"queue={','.join(machine.queues)}"
    kept = "  its keys are here" if machine.here else ""
    return f"{machine.name:<24} {','.join(machine.roles):<14} {whose:<20} {where:<20} {machine.fingerprint}{kept}"


def token_command(
    subject: Annotated[str, typer.Option(help="Whom the token stands for: a person, a machine, a pipeline.")],
    ttl: Annotated[str, typer.Option(help="How long it is valid: 90s, 15m, 1h30m, 7d.")] = "1h",
    tenant: Annotated[str, typer.Option(help="Whose jobs and queues it opens.")] = "default",
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may do, of submit,read,work,admin; with commas, or repeated.",
            show_default="submit,read,work,admin",
        ),
    ] = None,
    signing_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The key to sign with, PEM.", show_default="JWT_SIGNING_KEY, or the home's"),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(metavar="QUEUE", help="A queue that it opens; repeat it for more.", show_default="all"),
    ] = None,
) -> None:
    """Print a token, signed with --signing-key, JWT_SIGNING_KEY or the home's key.

    Present it with --token or AIRUNNER_TOKEN. It cannot be taken back: keep its life short.
    """
    from airunner.certs.curve import is_carried
    from airunner.certs.ownership import own_home
    from airunner.certs.principal import ALL_ROLES, check_queue_names, parse_roles
    from airunner.certs.secretfile import MissingFile
    from airunner.certs.tokenkeys import load_signing_key
    from airunner.certs.tokens import TokenSigner

    ttl_s = parse_ttl_s(ttl)
    roles = parse_roles(",".join(role)) if role is not None else ALL_ROLES
    home = own_home(os.environ)
    try:
        key = load_signing_key(os.environ, home, signing_key)
    except MissingFile as error:
        if signing_key is not None or not is_carried(home):
            raise
        raise OperatorError(
            "the key that signs tokens is not on this machine: run this on the broker's, and give the token to this one"
        ) from error
    signer = TokenSigner(key)
    now_s = time.time()
    queues = check_queue_names(queue) if queue else None
    print(signer.mint(subject=subject, tenant=tenant, roles=roles, queues=queues, ttl_s=ttl_s, now_s=now_s))


def parse_ttl_s(text: str) -> int:
    """The seconds in `90s`, `15m`, `1h30m` or `7d`.

    Raises `OperatorError`: written in another way.
    """
    try:
        return duration_ms(text, plain_seconds=False) // 1_000  # the bounds are TokenSigner's to judge
    except OperatorError as error:
        raise OperatorError(f"--ttl {error.message}") from error
