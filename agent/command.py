"""Command `airunner agent`: checks the options, and builds what the agent consists of."""

from __future__ import annotations

import gc
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airunner import __version__
from airunner.agent.checkout.fsck import Fsck
from airunner.agent.checkout.repository import REMOTE_SCHEMES
from airunner.agent.workspace.jobuser import RUN_AS_VARIABLE
from airunner.protocol.durations import seconds_between
from airunner.protocol.names import AGENT_NAME_VARIABLE
from airunner.protocol.printable import own_lines
from airunner.transport.endpoints import BROKER_VARIABLE, DEFAULT_BROKER, endpoints_of, require_loopback

if TYPE_CHECKING:
    from airunner.agent.checkout.mirrors import Mirrors
    from airunner.agent.home import LockedHome
    from airunner.agent.workspace.blobcache import BlobCache
    from airunner.certs.home import Home

SLOTS_SPAWNED_MAX = 256
VISIBILITY_S_MIN = 3
VISIBILITY_S_MAX = 43_200
IDLE_S_MAX = 31_536_000  # a year
MIRROR_GIB = 20
LOG_MIB_MAX = 1_024
SPOOL_GIB = 10
ARTIFACT_GIB = 10
BLOB_GIB = 1
CACHE_GIB = 20
FLUSH_KIB = 256
FLUSH_KIB_MAX = 256  # what a batch takes (`batching.BATCH_BYTES_ROUGH_MAX`)
GIB_MAX = 1_000_000
_GIB = 1 << 30


def agent_command(
    broker: Annotated[
        list[str] | None,
        typer.Option(
            help="Endpoint of a broker; repeat the option for several brokers, which are tried in turn.",
            envvar=BROKER_VARIABLE,
            show_default=DEFAULT_BROKER,
        ),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(help="Queue to lease from; repeat in order of preference.", show_default="the queue `default`"),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG=VALUE", help="Tag that jobs may require; may be repeated.", show_default="none"),
    ] = None,
    spawn: Annotated[int, typer.Option(min=1, max=SLOTS_SPAWNED_MAX, help="Number of jobs to run at once.")] = 1,
    visibility_timeout: Annotated[
        float,
        typer.Option(
            parser=seconds_between("--visibility-timeout", VISIBILITY_S_MIN, VISIBILITY_S_MAX),
            metavar="SECONDS",
            help="Seconds without a heartbeat after which the broker gives this agent's jobs to other agents.",
        ),
    ] = 300,
    cancel_grace: Annotated[
        float,
        typer.Option(
            parser=seconds_between("--cancel-grace", 0, VISIBILITY_S_MAX),
            metavar="SECONDS",
            help="Seconds between SIGTERM and SIGKILL for a command that is cancelled or exceeds its timeout.",
        ),
    ] = 10,
    allow_scheme: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCHEME",
            help="URL scheme to allow for repositories; may be repeated. The schemes named replace the default ones.",
            show_default=", ".join(REMOTE_SCHEMES),
        ),
    ] = None,
    allow_local: Annotated[
        bool, typer.Option("--allow-local", help="Also allow repositories at local paths and file:// URLs.")
    ] = False,
    fsck: Annotated[
        Fsck,
        typer.Option(
            help="Check of received git objects: refuse those with any fault, ignore harmless faults in old history, "
            "or check nothing."
        ),
    ] = Fsck.LENIENT,
    safe_directory: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Local repository to allow although another user owns it, or * for all; may be repeated.",
            show_default="none",
        ),
    ] = None,
    mirror_gib: Annotated[
        float,
        typer.Option(
            min=0,
            max=GIB_MAX,
            help="GiB of disk for mirrors, which speed up repeated checkouts; none if 0, or with --run-as.",
        ),
    ] = MIRROR_GIB,
    dissociate: Annotated[
        bool,
        typer.Option(
            "--dissociate",
            help="Copy the objects of mirrors to every checkout, for jobs whose containers do not see the mirrors.",
        ),
    ] = False,
    log_mib_max: Annotated[
        int, typer.Option(min=1, help="MiB of output to keep per attempt; longer output keeps its beginning and end.")
    ] = LOG_MIB_MAX,
    flush_interval: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Time for which output is gathered before it is sent, such as 500ms.",
            show_default="100ms; 20ms for jobs in a terminal",
        ),
    ] = None,
    flush_kib: Annotated[
        int, typer.Option(min=1, max=FLUSH_KIB_MAX, help="KiB of gathered output to send without further delay.")
    ] = FLUSH_KIB,
    spool_gib: Annotated[
        float,
        typer.Option(min=0.001, max=GIB_MAX, help="GiB of disk for output of all jobs that is not acknowledged yet."),
    ] = SPOOL_GIB,
    artifact_gib: Annotated[
        float, typer.Option(min=0.001, max=GIB_MAX, help="GiB of artifacts of one job; with more the job fails.")
    ] = ARTIFACT_GIB,
    blob_gib: Annotated[
        float,
        typer.Option(
            min=0,
            max=GIB_MAX,
            help="GiB of disk for pieces of files from the broker, which are then not fetched again.",
        ),
    ] = BLOB_GIB,
    cache_gib: Annotated[
        float,
        typer.Option(
            min=0, max=GIB_MAX, help="GiB of disk for caches that the next jobs get without copying; none if 0."
        ),
    ] = CACHE_GIB,
    memory_max_mib: Annotated[
        int | None,
        typer.Option(min=8, help="Maximum memory of each job in MiB; needs control groups.", show_default="no limit"),
    ] = None,
    pids_max: Annotated[
        int | None,
        typer.Option(
            min=2, help="Maximum processes and threads of each job; needs control groups.", show_default="no limit"
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Variable of the agent's environment that jobs may use as a secret; may be repeated.",
            show_default="none",
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="Variable for all jobs and hooks, which jobs may override; NAME alone takes the agent's own value. "
            "Proxies and CA certificates reach git too. May be repeated.",
            show_default="none",
        ),
    ] = None,
    env_file: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="File of such variables, one NAME[=VALUE] a line.", show_default="none"),
    ] = None,
    hooks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of hooks for each job: pre-checkout, post-checkout, pre-command, post-command, pre-exit.",
            show_default="$AIRUNNER_HOME/hooks, if it exists",
        ),
    ] = None,
    run_as: Annotated[
        list[str] | None,
        typer.Option(
            metavar="USER",
            help="User to run jobs as: a name, UID or UID:GID; the agent must be root. With several users (repeat the "
            "option, or separate them with commas) no two running jobs have the same.",
            envvar=RUN_AS_VARIABLE,
            show_default="the agent's own user",
        ),
    ] = None,
    disconnect_after_job: Annotated[
        bool,
        typer.Option(
            "--disconnect-after-job", help="End each slot after one job, and the agent when all slots have ended."
        ),
    ] = False,
    disconnect_after_idle: Annotated[
        float | None,
        typer.Option(
            parser=seconds_between("--disconnect-after-idle", 0, IDLE_S_MAX),
            metavar="SECONDS",
            help="End the agent after this many seconds without a job.",
            show_default="never",
        ),
    ] = None,
    drain_timeout: Annotated[
        float | None,
        typer.Option(
            parser=seconds_between("--drain-timeout", 0, IDLE_S_MAX),
            metavar="SECONDS",
            help="After SIGTERM or SIGINT, stop jobs that still run after this many seconds and give them back. Set it "
            "15 s below the time after which the agent would be killed, such as a pod's terminationGracePeriodSeconds.",
            show_default="no limit",
        ),
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Redact values of more variables in job logs: PATTERN is NAME or *_NAME; may be repeated.",
            show_default="*_TOKEN, *_SECRET, *_PASSWORD, *_API_KEY and similar names, always",
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of /health and /metrics, for everybody who can reach it; port 0 picks a free one.",
            show_default="none",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the agent.", envvar=AGENT_NAME_VARIABLE, show_default="HOST-1, or next free"),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="Token to present to the broker; overrides AIRUNNER_TOKEN.",
            show_default="a token signed with the home's key, if it has one",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File (mode 0600) with the token, read again when it changes.", show_default="none"
        ),
    ] = None,
) -> None:
    """Run an agent: it leases jobs, checks out repositories, runs commands and streams all output to the broker.

    SIGTERM or SIGINT: finish the running jobs, then exit. Again: stop them and give them back. Third: kill them.
    """
    from airunner.agent import plan as planning
    from airunner.agent.launcher.child.cgroup import Limits
    from airunner.agent.launcher.local import start_launcher

    planning.check_names(name, queue or ())
    endpoints = endpoints_of(broker, os.environ)
    require_loopback(endpoints)
    home, locked = _locked_home()
    users = planning.users_of(run_as or (), spawn, home, locked.folder)
    limits = Limits(memory_max_mib and memory_max_mib << 20, pids_max)
    launcher = start_launcher([locked.running], limits, locked.mark, locked.groups)

    import anyio

    from airunner.agent.attempt.surroundings import Surroundings
    from airunner.agent.caches.shelf import Shelf
    from airunner.agent.checkout.repository import Rules
    from airunner.agent.launcher.offloading import offload
    from airunner.agent.output.batching import flush_plan
    from airunner.agent.running import run
    from airunner.agent.workspace.jobuser import exposed_keys
    from airunner.agent.workspace.shortpaths import bases_of, report_unusable
    from airunner.transport.ports import SYSTEM

    plan = planning.Plan(
        name=name or f"{socket.gethostname()}-{locked.number}",
        slots=planning.slots_possible(spawn, _say),
        queues=tuple(queue or ["default"]),
        visibility_ms=int(visibility_timeout * 1_000),
        home=locked.folder,
        version=__version__,
        tags=planning.tags_of(tag or (), _say),
        log_bytes_max=log_mib_max << 20,
        spool_bytes_max=int(spool_gib * _GIB),
        flush=flush_plan(flush_interval, flush_kib),
        jobs_max=1 if disconnect_after_job else None,
        idle_s_max=disconnect_after_idle,
        drain_s_max=drain_timeout,
    )
    bases = bases_of(os.environ)
    report_unusable(bases, users, _say)
    surroundings = Surroundings(
        launcher=launcher,
        wall_ms=SYSTEM.wall_ms,
        environ=dict(os.environ),
        variables=planning.operators_variables(env or (), env_file or (), os.environ),
        offload=offload,
        cancel_grace_s=cancel_grace,
        secrets=planning.offered_secrets(secret or (), os.environ),
        open_box=partial(_open_box, home),
        hooks=planning.hooks_folder(hooks, home.hooks),
        redact=tuple(redact or ()),
        rules=Rules(planning.schemes_of(allow_scheme), allow_local, fsck, planning.safe_paths(safe_directory or ())),
        mirrors=_mirrors(locked.folder, 0 if users else mirror_gib, copied=dissociate),
        blobs=_blobs(locked.folder, blob_gib),
        shelf=Shelf(locked.folder, offload, int(cache_gib * _GIB)),
        random=SYSTEM.random,
        bases=bases,
        users=users,
        artifact_bytes_max=int(artifact_gib * _GIB),
    )
    if not users:
        _say(f"note: {exposed_keys(home)}")
    gc.freeze()  # the garbage collector need not scan the imported modules, which stay in use
    anyio.run(run, home, plan, surroundings, launcher, endpoints, token, token_file, http, _say)


def _locked_home() -> tuple[Home, LockedHome]:
    """Return the home, whose folder of agents is safe, and the agent's own folder in it, locked."""
    from airunner.agent.home import lock_home
    from airunner.certs.ownership import own_home, refuse_unsafe
    from airunner.certs.secretfile import make_folder

    home = own_home(os.environ)
    refuse_unsafe(home.agent)
    make_folder(home.root)
    locked = lock_home(home.agent)
    if locked.ended:
        _say(f"killed the processes that jobs of this home's last agent had left running: {locked.ended}")
    return home, locked


def _mirrors(folder: Path, gib: float, *, copied: bool) -> Mirrors | None:
    """Return the mirrors of an agent, whose own folder is `folder`, if they may take any room."""
    from airunner.agent.checkout.mirrors import Mirrors
    from airunner.agent.launcher.offloading import offload

    return Mirrors(folder, offload, int(gib * _GIB), copied=copied) if gib else None


def _blobs(folder: Path, gib: float) -> BlobCache | None:
    """Return the blob cache of an agent, whose own folder is `folder`, if it may take any room."""
    from airunner.agent.workspace.blobcache import FOLDER, BlobCache

    return BlobCache(folder / FOLDER, int(gib * _GIB)) if gib else None


def _open_box(home: Home, queue: str, name: str, box: bytes) -> bytes:
    """Open a sealed secret with the queue's key, which is read each time: a key may be added while the agent runs."""
    from airunner.certs.queuekeys import load_secret, open_secret

    return open_secret(load_secret(home, queue), queue, name, box)


def _say(*lines: str) -> None:
    sys.stderr.write("".join(f"{own_lines(line)}\n" for line in lines))  # once: each call with a line's end writes
