"""`airunner agent`: builds the agent of real parts and runs it until it is told to stop.

The launcher is started first, before there is a ZeroMQ context whose threads a fork would meet.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airunner.agent.checkout.repository import NO_PLACES, REMOTE_SCHEMES, SCHEME
from airunner.agent.workspace.jobuser import RUN_AS_VARIABLE
from airunner.protocol.durations import seconds_between
from airunner.protocol.errors import OperatorError
from airunner.protocol.listhint import pairs_hint
from airunner.protocol.names import NAME_CHARS_MAX, TAGS_MAX, fits_name, fits_tag_value
from airunner.protocol.printable import own_lines
from airunner.transport.endpoints import BROKER_VARIABLE, DEFAULT_BROKER, endpoints_of, require_loopback

if TYPE_CHECKING:
    from airunner.agent.agent import Agent
    from airunner.agent.attempt.attempt import Surroundings
    from airunner.agent.home import LockedHome
    from airunner.agent.launcher.local import ChildLauncher
    from airunner.agent.plan import Plan
    from airunner.agent.workspace.jobuser import JobUser
    from airunner.certs.home import Home

SLOTS_SPAWNED_MAX = 256
SLOT_DESCRIPTORS = 8  # a running job takes 4 (two pipes, its keeper's line, its spool), and up to 4 more for a moment
AGENT_DESCRIPTORS = 64  # of an agent without jobs 20, and some for its disk and another connection
VISIBILITY_S_MIN = 3
VISIBILITY_S_MAX = 43_200
IDLE_S_MAX = 31_536_000  # a year
MIRROR_GIB = 20
LOG_MIB_MAX = 1_024
SPOOL_GIB = 10
FLUSH_KIB = 64
FLUSH_KIB_MAX = 256  # what one batch holds
_GIB = 1 << 30


def agent_command(
    broker: Annotated[
        list[str] | None,
        typer.Option(
            help="A broker's endpoint; repeat it for more, which are tried in turn.",
            envvar=BROKER_VARIABLE,
            show_default=DEFAULT_BROKER,
        ),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(help="A queue to take jobs from; repeat it in order of preference.", show_default="default"),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG=VALUE", help="What this agent has, for jobs that require it; may be repeated."),
    ] = None,
    spawn: Annotated[int, typer.Option(min=1, max=SLOTS_SPAWNED_MAX, help="How many jobs to run at once.")] = 1,
    visibility_timeout: Annotated[
        float,
        typer.Option(
            parser=seconds_between("--visibility-timeout", VISIBILITY_S_MIN, VISIBILITY_S_MAX),
            metavar="SECONDS",
            help="Seconds after which a job of an agent that is not heard from is given to another.",
        ),
    ] = 300,
    cancel_grace: Annotated[
        float,
        typer.Option(
            parser=seconds_between("--cancel-grace", 0, VISIBILITY_S_MAX),
            metavar="SECONDS",
            help="Seconds between SIGTERM and SIGKILL for a command that is cancelled or out of time.",
        ),
    ] = 10,
    allow_scheme: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCHEME",
            help="A scheme of the URLs that repositories may have; may be repeated.",
            show_default=", ".join(REMOTE_SCHEMES),
        ),
    ] = None,
    allow_local: Annotated[
        bool, typer.Option("--allow-local", help="Check out of local paths and file:// URLs too.")
    ] = False,
    mirror_gib: Annotated[
        float, typer.Option(min=0, help="What copies of repositories may take, to check out from again; 0: none.")
    ] = MIRROR_GIB,
    log_mib_max: Annotated[
        int,
        typer.Option(min=1, help="MiB of a job's output that are kept: beyond them its head and tail."),
    ] = LOG_MIB_MAX,
    flush_interval: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long output gathers before it is sent, such as 500ms.",
            show_default="100ms, of terminals 20ms",
        ),
    ] = None,
    flush_kib: Annotated[
        int, typer.Option(min=1, max=FLUSH_KIB_MAX, help="KiB of output at which it is sent sooner.")
    ] = FLUSH_KIB,
    spool_gib: Annotated[
        float,
        typer.Option(min=0.001, help="GiB of disk for what a broker that is away has not taken yet."),
    ] = SPOOL_GIB,
    memory_max_mib: Annotated[
        int | None,
        typer.Option(min=8, help="MiB of memory for each job; needs control groups.", show_default="no bound"),
    ] = None,
    pids_max: Annotated[
        int | None,
        typer.Option(min=2, help="Processes and threads for each job; likewise.", show_default="no bound"),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A variable of this agent's environment that jobs may ask for as a secret; may be repeated.",
            show_default="none",
        ),
    ] = None,
    hooks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Programs to run around each job: pre-checkout, post-checkout, pre-command, post-command, pre-exit.",
            show_default="$AIRUNNER_HOME/hooks, if it is there",
        ),
    ] = None,
    run_as: Annotated[
        list[str] | None,
        typer.Option(
            metavar="USER",
            help="Run jobs as this user (or UID, UID:GID); the agent must be root. With several, repeated or behind "
            "commas, each slot has one of its own.",
            envvar=RUN_AS_VARIABLE,
            show_default="the agent's own",
        ),
    ] = None,
    disconnect_after_job: Annotated[
        bool, typer.Option("--disconnect-after-job", help="Let each slot end after one job, and the agent with them.")
    ] = False,
    disconnect_after_idle: Annotated[
        float | None,
        typer.Option(
            parser=seconds_between("--disconnect-after-idle", 0, IDLE_S_MAX),
            metavar="SECONDS",
            help="Leave after so long without a job.",
            show_default="never",
        ),
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Keep the values of a job's variables with such names out of its log, as NAME or *_NAME; repeatable.",
            show_default="*_TOKEN, *_SECRET, *_PASSWORD, *_KEY and the like, always",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The agent's name in logs.", show_default="HOST-NUMBER")] = None,
    token: Annotated[
        str | None,
        typer.Option(help="The token to present; AIRUNNER_TOKEN too.", show_default="one of its own, if it can"),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A file (0600) with the token, read again whenever it changes.", show_default="none"
        ),
    ] = None,
) -> None:
    """Run an agent: it leases jobs, checks repositories out, runs commands and streams every byte back.

    SIGTERM once: finish what runs and stop. Twice: end and release it. A third time: kill and exit.
    """
    from airunner.agent.launcher.child.cgroup import Limits
    from airunner.agent.launcher.local import start_launcher
    from airunner.certs.ownership import own_home, refuse_unsafe
    from airunner.certs.secretfile import make_folder

    _check_names(name, queue or ())
    endpoints = endpoints_of(broker, os.environ)
    require_loopback(endpoints)
    home = own_home(os.environ)
    refuse_unsafe(home.agent)
    make_folder(home.root)
    locked = _lock_home(home.agent)
    users = _users(run_as or (), spawn, home, locked.folder)
    memory_bytes_max = None if memory_max_mib is None else memory_max_mib << 20
    launcher = start_launcher([locked.running], Limits(memory_bytes_max, pids_max), locked.mark, locked.groups)

    import anyio

    from airunner.agent.attempt.attempt import Surroundings
    from airunner.agent.checkout.mirrors import Mirrors
    from airunner.agent.checkout.repository import Rules
    from airunner.agent.launcher.offloading import offload
    from airunner.agent.output.batching import flush_plan
    from airunner.agent.plan import Plan
    from airunner.agent.workspace.jobuser import exposed_keys
    from airunner.protocol.redaction import SECRET_NAMES
    from airunner.transport.ports import SYSTEM

    def open_box(queue: str, name: str, box: bytes) -> bytes:
        from airunner.certs.queuekeys import load_secret, open_secret

        return open_secret(load_secret(home, queue), queue, name, box)  # a key that is made later counts at once

    plan = Plan(
        name=name or f"{socket.gethostname()}-{locked.number}",
        slots=_slots_carried(spawn),
        queues=tuple(queue or ["default"]),
        visibility_ms=int(visibility_timeout * 1_000),
        home=locked.folder,
        version=_version(),
        tags=_tags(tag or ()),
        log_bytes_max=log_mib_max << 20,
        spool_bytes_max=int(spool_gib * _GIB),
        flush=flush_plan(flush_interval, flush_kib),
        jobs_max=1 if disconnect_after_job else None,
        idle_s_max=disconnect_after_idle,
    )
    surroundings = Surroundings(
        launcher=launcher,
        wall_ms=SYSTEM.wall_ms,
        environ=dict(os.environ),
        offload=offload,
        cancel_grace_s=cancel_grace,
        secrets=_offered(secret or ()),
        open_box=open_box,
        hooks=_hooks_folder(hooks, home.hooks),
        redact=(*SECRET_NAMES, *(redact or ())),
        rules=Rules(_schemes(allow_scheme), allow_local),
        mirrors=Mirrors(locked.folder, offload, int(mirror_gib * _GIB)) if mirror_gib and not users else None,
        random=SYSTEM.random,
        users=users,
    )
    if not users:
        _say(f"note: {exposed_keys(home)}")
    gc.freeze()  # what was imported stays: no collection is to look through it
    anyio.run(_run, home, plan, surroundings, launcher, endpoints, token, token_file)


async def _run(
    home: Home,
    plan: Plan,
    surroundings: Surroundings,
    launcher: ChildLauncher,
    endpoints: tuple[str, ...],
    token: str | None,
    token_file: Path | None,
) -> None:
    """The agent's life."""
    import anyio

    from airunner.agent.agent import Agent
    from airunner.certs.curve import load_broker_public, load_client_pair
    from airunner.certs.principal import Role
    from airunner.certs.tokensource import token_source
    from airunner.transport.channel import Channel, Patience
    from airunner.transport.ports import SYSTEM
    from airunner.transport.sockets import CurveNetwork, new_context

    tokens = token_source(
        os.environ, home, explicit=token, file=token_file, subject="agent", roles=[Role.WORK], report=_say
    )
    network = CurveNetwork(new_context(), load_client_pair(home), load_broker_public(home))
    channel = Channel(
        network,
        endpoints,
        lambda: tokens.token_at(SYSTEM.wall_ms() / 1_000),
        SYSTEM,
        Patience(notice=lambda endpoint, _: _say(f"waiting for the broker at {endpoint}"), doubt=_say),
    )
    agent = Agent(plan, channel, surroundings, SYSTEM, _say)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_obey_signals, agent, launcher)
            group.start_soon(launcher.watch)
            await agent.run()
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await launcher.aclose()
    _say("airunner agent stopped")


def _lock_home(agents: Path) -> LockedHome:
    """The agent's own folder.

    Raises `OperatorError`.
    """
    from airunner.agent.home import lock_home

    locked = lock_home(agents)
    if locked.ended:
        _say(f"ended what the last agent of this home had left running: {locked.ended}")
    return locked


def _slots_carried(spawn: int) -> int:
    """How many slots the descriptors carry that this process may have; where that is fewer it is said.

    Once the launcher is there, whose processes are to have the bound that we were given.
    """
    from airunner.transport.descriptors import raise_descriptors

    descriptors = raise_descriptors(AGENT_DESCRIPTORS + spawn * SLOT_DESCRIPTORS)
    carried = max(1, (descriptors - AGENT_DESCRIPTORS) // SLOT_DESCRIPTORS)
    if carried < spawn:
        _say(
            f"--spawn {spawn}: only {carried} jobs run at once, for this process may open {descriptors} files; "
            "raise its hard bound (ulimit -Hn, LimitNOFILE=) or lower --spawn"
        )
    return min(spawn, carried)


def _check_names(name: str | None, queues: Sequence[str]) -> None:
    """Raises `OperatorError` for one that no agent or no queue can have."""
    for what, word in [("--name", name or "agent"), *(("--queue", word) for word in queues)]:
        if not fits_name(word):
            raise OperatorError(
                f"{what} {word!r}: expected 1 to {NAME_CHARS_MAX} letters, digits and any of _.@:/+-, "
                "not beginning with a sign"
            )


def _users(named: Sequence[str], slots: int, home: Home, folder: Path) -> tuple[JobUser, ...]:
    """The users that jobs run as, who get through to their workspaces.

    Raises `OperatorError`.
    """
    from airunner.agent.workspace.jobuser import job_users, let_pass
    from airunner.agent.workspace.workspace import workspaces_folder
    from airunner.certs.secretfile import make_folder

    users = job_users(named, slots)
    if users:
        workspaces = workspaces_folder(folder)
        make_folder(workspaces)
        let_pass(users, workspaces, (home.root, home.agent, folder, workspaces))
    return users


def _offered(names: Sequence[str]) -> dict[str, str]:
    """The secrets that jobs may ask for.

    Raises `OperatorError` for one that is not there.
    """
    for name in names:
        if name not in os.environ:
            raise OperatorError(f"--secret {name}: there is no such variable in the agent's environment; set it")
    return {name: os.environ[name] for name in names}


def _tags(pairs: Sequence[str]) -> dict[str, str]:
    """Names and values.

    Raises `OperatorError` for what is not both.
    """
    if (hint := pairs_hint("--tag", pairs)) is not None:
        _say(hint)
    split = [pair.partition("=") for pair in pairs]
    for pair, (name, equals, value) in zip(pairs, split, strict=True):
        if not equals or not fits_name(name) or not fits_tag_value(value):
            raise OperatorError(f"--tag {pair!r}: expected TAG=VALUE such as os=linux, up to {NAME_CHARS_MAX} each")
    tags = {name: value for name, _, value in split}
    if len(tags) > TAGS_MAX:
        raise OperatorError(f"an agent has up to {TAGS_MAX} tags")
    return tags


def _schemes(named: Sequence[str] | None) -> tuple[str, ...]:
    """Of which URLs checkouts may be.

    Raises `OperatorError` for what is no scheme of a remote repository.
    """
    for scheme in named or ():
        if not SCHEME.fullmatch(scheme) or scheme in NO_PLACES:
            raise OperatorError(f"--allow-scheme {scheme!r}: expected a scheme such as https, ssh, git or http")
    return tuple(dict.fromkeys(named)) if named else REMOTE_SCHEMES


def _hooks_folder(named: Path | None, usual: Path) -> Path | None:
    """Where hooks are.

    Raises `OperatorError` for a folder that was named and is none, and for one in which others could write.
    """
    from airunner.certs.ownership import unsafe_reason

    if named is not None and not named.is_dir():
        raise OperatorError(f"--hooks {named}: there is no such folder")
    folder = named or usual
    if not folder.is_dir():
        return None
    if fault := unsafe_reason(folder):
        raise OperatorError(f"the hooks in it are not to be trusted: {fault}")
    return folder.absolute()


def _version() -> str:
    """Of this software, where it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("airunner")
    except PackageNotFoundError:
        return ""


async def _obey_signals(agent: Agent, launcher: ChildLauncher) -> None:
    """Once: drain. Twice: end and release. A third time: kill."""
    import anyio

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        count = 0
        async for number in signals:
            count += 1
            match count:
                case 1:
                    _say("draining: no more jobs are taken; once more to release those that run")
                    agent.orders.drain.set()
                case 2:
                    _say("stopping: what runs is ended and released; once more to exit at once")
                    agent.orders.stop.set()
                case _:
                    _say("killed")
                    os.kill(launcher.pid, signal.SIGKILL)
                    os._exit(128 + number)


def _say(line: str) -> None:
    print(own_lines(line), file=sys.stderr, flush=True)
