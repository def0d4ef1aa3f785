"""Commands `airunner broker` and `airunner orchestrator`: parse their options, and start the relay and the broker."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from contextlib import closing
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from airunner.certs.principal import DEFAULT_TENANT
from airunner.protocol.durations import days_up_to, of_flag
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import NAME_EXPECTED, fits_name

DEFAULT_LISTEN = "tcp://127.0.0.1:7070"
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
            show_default="the port after that of --listen, on its host",
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="Name or address at which other brokers of the store, and clients, reach this machine.",
            show_default="the host of --listen",
        ),
    ] = None,
    http: Annotated[
        str, typer.Option(help="HOST:PORT of /health and /metrics; port 0 picks a free one.")
    ] = DEFAULT_HTTP,
    store: Annotated[
        str | None,
        typer.Option(
            help=(
                "Store to use: sqlite:///PATH; postgresql://… or aws:TABLE for several brokers, which need the same "
                "key pair; or memory: for a store that is lost when the broker ends."
            ),
            show_default="sqlite:///$AIRUNNER_HOME/broker/airunner.db",
        ),
    ] = None,
    blobs: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help=(
                "Folder for files of jobs, or a bucket: s3://BUCKET/PREFIX, gs://… or az://…. Brokers of one store "
                "need the same."
            ),
            show_default="$AIRUNNER_HOME/broker/blobs, or none for several brokers",
        ),
    ] = None,
    cache_gib: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=GIB_MAX,
            help="GiB of caches that the jobs of a tenant save; above it those that were not used longest are removed.",
        ),
    ] = 20,
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
    store_gib: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=GIB_MAX,
            help="GiB that a store on PostgreSQL or AWS may take; --reserve-mib before that new jobs are rejected.",
            show_default="no bound",
        ),
    ] = None,
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
    from airunner.broker.settings import Settings
    from airunner.broker.store.quotas import Quotas
    from airunner.transport.descriptors import raise_descriptors
    from airunner.transport.endpoints import require_loopback, split_endpoint
    from airunner.transport.heap import return_freed_memory

    address = of_flag("--listen", split_endpoint, listen)
    following = address._replace(port=address.port and address.port + 1)  # clients reach both at one host
    events = events or f"tcp://{following}"
    of_flag("--events", split_endpoint, events)
    require_loopback([listen])
    tenants = tenants_named(metrics_tenant or [DEFAULT_TENANT])
    store_bytes_max = None if retain_gib is None else int(retain_gib * _GIB)
    plan = RetentionPlan(retain_days=retain_days, store_bytes_max=store_bytes_max)
    raise_descriptors(DESCRIPTORS)
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()  # the garbage collector need not scan imported modules: they are never freed
    gc.set_threshold(YOUNG_OBJECTS)
    return_freed_memory()
    quotas = Quotas(
        waiting_max=tenant_waiting,
        bytes_max=None if tenant_gib is None else int(tenant_gib * _GIB),
        requests_per_s=tenant_requests,
        watched_max=tenant_watched,
    )
    settings = Settings(
        listen=listen,
        advertise=advertise,
        http=http,
        store_url=store,
        blobs=blobs,
        cache_bytes_max=int(cache_gib * _GIB),
        auth=auth,
        public_key=jwt_public_key,
        retention=plan,
        quotas=quotas,
        reserve_bytes=reserve_mib * _MIB,
        store_bytes_max=None if store_gib is None else int(store_gib * _GIB),
        connections_per_s=machine_connections,
        connections_burst_s=CONNECTIONS_BURST_S,
        tenants=tenants,
    )
    # The relay is started before the broker's modules are imported, so that it starts up meanwhile.
    with closing(start_relay(events, machine_connections, CONNECTIONS_BURST_S)) as relay:
        from airunner.broker.serving import serve

        anyio.run(serve, settings, relay)


def orchestrator_command(store: str, **options: Any) -> None:  # noqa: ANN401 - those of `broker_command`
    """Run the broker on AWS: the queue and the event log are in a table of DynamoDB.

    It is `airunner broker` with such a store, and takes the same options. Several may run on one table, and each may
    die at any time. Beside the table they use a queue of SQS for bells and one for what schedules submit, and send
    lifecycle events to an event bus of EventBridge; deploy/aws makes all of them. Credentials and region are AWS's own
    settings.
    """
    from airunner.broker.store.awsurl import is_aws

    if not is_aws(store):
        raise OperatorError(
            "--store has to name a table of DynamoDB, as aws:TABLE; `airunner broker` takes other stores"
        )
    broker_command(store=store, **options)


_TableOption = Annotated[
    str,
    typer.Option(
        metavar="aws:TABLE",
        help=(
            "Table of DynamoDB, as aws:TABLE?region=REGION&bus=NAME; further parameters: endpoint, sqs, events, bells, "
            "submissions, submitters."
        ),
    ),
]


def _with_options_of_the_broker(command: Callable[..., None]) -> None:
    """Give a command the options of `airunner broker`, with a --store that names a table and is required."""
    options = [
        option.replace(kind=Parameter.KEYWORD_ONLY)
        for option in signature(broker_command, eval_str=True).parameters.values()
    ]
    at = [option.name for option in options].index("store")
    options[at] = options[at].replace(default=Parameter.empty, annotation=_TableOption)
    # Ignored: functions may have this attribute, which signature() reads; their type does not declare it.
    command.__signature__ = Signature(options)  # type: ignore[attr-defined]  # inspect reads it, and so does Typer
    command.__annotations__ = {option.name: option.annotation for option in options}


_with_options_of_the_broker(orchestrator_command)


def tenants_named(names: list[str]) -> tuple[str, ...]:
    """Return the tenants of --metrics-tenant, each once. Raises `OperatorError`: too many, or no names of tenants."""
    for name in names:
        if not fits_name(name):
            raise OperatorError(f"--metrics-tenant {name!r} is not a tenant's name: expected {NAME_EXPECTED}")
    tenants = tuple(dict.fromkeys(names))
    if len(tenants) > METRICS_TENANTS_MAX:
        raise OperatorError(f"--metrics-tenant names {len(tenants)} tenants: name {METRICS_TENANTS_MAX} at most")
    return tenants
