"""Command `airunner broker`: builds the broker with real sockets, files and clocks, and runs it until a signal.

The Gatekeeper's socket is bound before the socket for requests, as `gatekeeper` explains.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airunner.certs.principal import DEFAULT_TENANT
from airunner.protocol.durations import days_up_to, of_flag
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import NAME_EXPECTED, fits_name
from airunner.protocol.printable import own_lines

if TYPE_CHECKING:
    import anyio

    from airunner.broker.disk import StoreDisk
    from airunner.broker.health import Health
    from airunner.broker.janitor import RetentionPlan
    from airunner.broker.relay.relay import Relay
    from airunner.broker.store.quotas import Quotas
    from airunner.broker.store.sqlite.engine import SqliteEngine
    from airunner.certs.authority import Authority
    from airunner.certs.home import Home

DEFAULT_LISTEN = "tcp://127.0.0.1:7070"
EVENTS_PORT = 7071  # default port of --events, on the host of --listen: clients reach both at one host
SWITCH_S = 0.0002  # GIL switch interval: each commit waits for the GIL twice, with Python's default 5 ms each time
YOUNG_OBJECTS = 10_000  # more than a batch makes: with the usual 700 the garbage collector runs in each, 2 % of a job
TENANT_REQUESTS_A_SECOND = 1_000.0
MACHINE_CONNECTIONS_A_SECOND = 100.0  # an airunner command opens two, in a third of a second
CONNECTIONS_BURST_S = 5.0  # seconds of that rate at once, for a machine whose agents start together
DEFAULT_HTTP = "127.0.0.1:8080"
RETAIN_DAYS_MAX = 36_500
GIB_MAX = 1_000_000
METRICS_TENANTS_MAX = 16  # they share what /metrics may name, see `backlog`
RATE_MAX = 1_000_000_000  # a second
DESCRIPTORS = 65_536  # limit of open file descriptors: each connection takes one, even before it is authenticated
_MIB = 1_048_576
_GIB = 1_024 * _MIB


def broker_command(
    listen: Annotated[
        str, typer.Option(help="Endpoint on which to accept requests; port 0 picks a free one.")
    ] = DEFAULT_LISTEN,
    events: Annotated[
        str | None,
        typer.Option(
            help="Endpoint on which to publish live events; port 0 picks a free one.",
            show_default=f"port {EVENTS_PORT} on the host of --listen",
        ),
    ] = None,
    http: Annotated[
        str, typer.Option(help="HOST:PORT of /health and /metrics; port 0 picks a free one.")
    ] = DEFAULT_HTTP,
    store: Annotated[
        str | None,
        typer.Option(
            help="Store to use: sqlite:///PATH, or memory: for a store that is lost when the broker ends.",
            show_default="sqlite:///$AIRUNNER_HOME/broker/airunner.db",
        ),
    ] = None,
    retain_days: Annotated[
        float,
        typer.Option(
            parser=days_up_to("--retain-days", RETAIN_DAYS_MAX),
            metavar="DAYS",
            help="Days, or a duration such as 12h or 2w, after which a finished job and its log are removed.",
        ),
    ] = 30,
    retain_gib: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=GIB_MAX,
            help="GiB of the store above which finished jobs of the largest tenants are removed before --retain-days.",
            show_default="no bound",
        ),
    ] = None,
    reserve_mib: Annotated[
        int,
        typer.Option(min=0, help="Minimum free space in MiB on the store's disk; below it new jobs are rejected."),
    ] = 256,
    tenant_waiting: Annotated[
        int | None, typer.Option(min=0, help="Maximum waiting jobs of one tenant.", show_default="no bound")
    ] = None,
    tenant_gib: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=GIB_MAX,
            help="GiB of a tenant's jobs and logs at which new jobs are rejected; output is rejected at twice that.",
            show_default="no bound",
        ),
    ] = None,
    tenant_requests: Annotated[
        float,
        typer.Option(
            min=1,
            max=RATE_MAX,
            help=(
                "Maximum requests a second of one tenant, counted as submissions of one job (some 0.2 ms of the "
                "broker's work): a request that takes more work counts as several."
            ),
        ),
    ] = TENANT_REQUESTS_A_SECOND,
    tenant_watched: Annotated[
        int | None,
        typer.Option(
            min=0, help="Maximum jobs whose live events one tenant may follow at once.", show_default="no bound"
        ),
    ] = None,
    machine_connections: Annotated[
        float,
        typer.Option(
            min=1, max=RATE_MAX, help="Maximum new connections a second of one machine; more have to try again."
        ),
    ] = MACHINE_CONNECTIONS_A_SECOND,
    metrics_tenant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TENANT",
            help="Tenant whose queues and required tags /metrics shows by name, to everybody who can reach --http; may "
            "be repeated. The others' jobs are summed.",
            show_default="the tenant `default`",
        ),
    ] = None,
    auth: Annotated[
        bool, typer.Option("--auth/--no-auth", help="Require a token with each request; --no-auth is for development.")
    ] = True,
    jwt_public_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="PEM file of the public keys that verify tokens.",
            show_default="JWT_PUBLIC_KEY, or the home's keys",
        ),
    ] = None,
) -> None:
    """Run the broker: it owns the queue and the event log.

    It prints one line with its endpoints on stderr when it is ready. SIGTERM or Ctrl-C stops it, and loses nothing.
    """
    import anyio

    from airunner.broker.janitor import RetentionPlan
    from airunner.broker.relay.relay import start_relay
    from airunner.broker.store.quotas import Quotas
    from airunner.transport.descriptors import raise_descriptors
    from airunner.transport.endpoints import require_loopback, split_endpoint

    address = of_flag("--listen", split_endpoint, listen)
    events = events or f"tcp://{address._replace(port=EVENTS_PORT)}"
    of_flag("--events", split_endpoint, events)
    require_loopback([listen])
    tenants = tenants_named(metrics_tenant or [DEFAULT_TENANT])
    store_bytes_max = None if retain_gib is None else int(retain_gib * _GIB)
    plan = RetentionPlan(retain_days=retain_days, store_bytes_max=store_bytes_max)
    raise_descriptors(DESCRIPTORS)
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()  # the garbage collector need not scan imported modules: they are never freed
    gc.set_threshold(YOUNG_OBJECTS)
    quotas = Quotas(
        waiting_max=tenant_waiting,
        bytes_max=None if tenant_gib is None else int(tenant_gib * _GIB),
        requests_per_s=tenant_requests,
        watched_max=tenant_watched,
    )
    # The relay is started before the broker's modules are imported, so that it starts up meanwhile.
    with closing(start_relay(events, machine_connections, CONNECTIONS_BURST_S)) as relay:
        anyio.run(
            _run,
            listen,
            relay,
            http,
            store,
            auth,
            plan,
            quotas,
            reserve_mib * _MIB,
            machine_connections,
            jwt_public_key,
            tenants,
        )


async def _run(
    listen: str,
    relay: Relay,
    http: str,
    store_url: str | None,
    auth: bool,
    retention: RetentionPlan,
    quotas: Quotas,
    reserve_bytes: int,
    connections_per_s: float,
    public_key: Path | None,
    tenants: tuple[str, ...],
) -> None:
    """Run the broker until a signal."""
    import anyio

    from airunner.broker.broker import Broker
    from airunner.broker.control import open_control
    from airunner.broker.counts import Counts
    from airunner.broker.gatekeeper import Gatekeeper
    from airunner.broker.health import Health
    from airunner.broker.http import broker_pages
    from airunner.broker.rates import Rates
    from airunner.broker.stalls import Stalls
    from airunner.broker.store.batch import Store
    from airunner.broker.store.open import open_engine, path_of
    from airunner.certs.allowlist import AllowList
    from airunner.certs.curve import load_broker_pair
    from airunner.certs.ownership import own_home, refuse_unsafe
    from airunner.transport.http import open_http
    from airunner.transport.ports import SYSTEM
    from airunner.transport.sockets import CurveRouter, bind_gatekeeper, new_context
    from airunner.transport.workthread import WorkThread

    home = own_home(os.environ)
    refuse_unsafe(home.store.parent)
    pair = load_broker_pair(home)
    authority = _authority(home, public_key, auth=auth)
    counts = Counts()
    health = Health(lambda line: _say(f"airunner broker: {line}"))
    store_url = store_url or f"sqlite:///{home.store}"
    engine = open_engine(store_url)
    health.watch(lambda: judge_store(engine.damage, health))
    health.watch(lambda: judge_descriptors(health))
    path = path_of(store_url)
    with closing(engine), closing(WorkThread()) as thread:
        context = new_context()
        allowed = AllowList(home.allowed_clients, _say)
        gatekeeper = Gatekeeper(
            bind_gatekeeper(context),
            allowed,
            counts,
            Rates(connections_per_s, CONNECTIONS_BURST_S),
            admitted=lambda: judge_descriptors(health, may_clear=False),
        )
        async with anyio.create_task_group() as group:
            group.start_soon(_until_signal, group.cancel_scope)
            group.start_soon(gatekeeper.run, name="Gatekeeper")
            router = CurveRouter(context, pair, listen)
            await relay.ready()
            group.start_soon(relay.run, counts, health, name="Relay")
            broker = Broker(
                store=Store(engine),
                router=router,
                publisher=relay,
                authority=authority,
                edges=SYSTEM,
                offload=Stalls(thread, health),
                counts=counts,
                disk=None if path is None else _disk_under(path, engine, reserve_bytes, health),
                retention=retention,
                machines=allowed.entry_for,
                quotas=quotas,
                health=health,
            )
            server = await open_http(http)
            group.start_soon(server.run, broker_pages(health, broker.metrics(tenants)), name="HttpServer")
            if path is not None:
                control = await open_control(path, broker.ledger_inbox, engine.copy_to)
                group.start_soon(control.run, name="ControlSocket")
            await group.start(broker.run, name="Broker")
            _say(f"airunner broker ready: requests {router.endpoint} events {relay.endpoint} http {server.address}")
        _say("airunner broker stopped")


def _disk_under(path: Path, engine: SqliteEngine, reserve_bytes: int, health: Health) -> StoreDisk:
    """Create the store's disk and measure it, so that problems are reported before the broker is ready."""
    from airunner.broker.disk import StoreDisk

    disk = StoreDisk(path, engine, reserve_bytes, health)
    disk.look()
    return disk


def tenants_named(names: list[str]) -> tuple[str, ...]:
    """Return the tenants of --metrics-tenant, each once. Raises `OperatorError`: too many, or no names of tenants."""
    for name in names:
        if not fits_name(name):
            raise OperatorError(f"--metrics-tenant {name!r} is not a tenant's name: expected {NAME_EXPECTED}")
    tenants = tuple(dict.fromkeys(names))
    if len(tenants) > METRICS_TENANTS_MAX:
        raise OperatorError(f"--metrics-tenant names {len(tenants)} tenants: name {METRICS_TENANTS_MAX} at most")
    return tenants


def judge_store(damage: tuple[int, int], health: Health) -> None:
    """Report in /health that the store is damaged. The condition stays until the broker ends."""
    met, aside = damage
    if met:
        jobs = {0: "some requests are refused", 1: "1 job is out of use"}.get(aside, f"{aside} jobs are out of use")
        health.degrade(
            "store",
            f"the store is damaged: {jobs}; stop the broker, run `airunner store check`, and restore a backup with "
            "`airunner store restore`",
        )


def judge_descriptors(health: Health, *, may_clear: bool = True) -> None:
    """Report in /health that this process has no descriptor left, and accepts no further connection.

    `may_clear`: end the condition if there is one again. Where connections come and go, that would be said too often.
    """
    from airunner.transport.descriptors import has_descriptor, soft_descriptors

    if not has_descriptor():
        health.degrade(
            "descriptors",
            f"all {soft_descriptors()} descriptors are in use, and no further connection is accepted: raise the limit "
            "(LimitNOFILE= of the unit, or `ulimit -n`)",
        )
    elif may_clear:
        health.clear("descriptors")


def _authority(home: Home, public_key: Path | None, *, auth: bool) -> Authority:
    from airunner.certs.authority import NoVerifier
    from airunner.certs.tokenkeys import load_verifying_keys
    from airunner.certs.tokenverifier import CachedVerifier, TokenVerifier

    if auth:
        return CachedVerifier(TokenVerifier(load_verifying_keys(os.environ, home, public_key)))
    _say("warning: --no-auth accepts every request for the default tenant; the allow-list still controls who connects")
    return NoVerifier()


async def _until_signal(scope: anyio.CancelScope) -> None:
    """End the broker on SIGTERM or SIGINT; the batch that is being committed is finished first."""
    import anyio

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
            return


def _say(line: str) -> None:
    print(own_lines(line), file=sys.stderr, flush=True)
