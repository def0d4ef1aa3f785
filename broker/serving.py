"""Serving: builds the broker with real sockets, files and clocks, and runs it until a signal.

The Gatekeeper's socket is bound before the socket for requests, as `gatekeeper` explains. A store in a file is opened
first. A store of several brokers is opened when all sockets are bound, since the broker's row there says where they
are; its home is locked meanwhile, so that no other process is the same broker.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio

from airunner.broker.aws.opening import NO_LINES, open_lines
from airunner.broker.blobs.address import MEMORY, open_blobs
from airunner.broker.blobs.keeper import Blobs
from airunner.broker.broker import Broker, Membership
from airunner.broker.conditions import judge_descriptors, judge_durability, judge_store
from airunner.broker.control import open_control
from airunner.broker.counts import Counts
from airunner.broker.disk import Disk, ServerDisk, StoreDisk
from airunner.broker.gatekeeper import Gatekeeper
from airunner.broker.health import Health
from airunner.broker.homelock import locked_home
from airunner.broker.http import broker_pages
from airunner.broker.identity import advertised, broker_id, fleet_of
from airunner.broker.rates import Rates
from airunner.broker.relay.relay import Relay
from airunner.broker.settings import Settings
from airunner.broker.stalls import DISK, SERVER, Stalls
from airunner.broker.store.awsurl import AwsUrl, is_aws
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Engine, Fenced, Identity, StoreAway
from airunner.broker.store.open import is_postgres, open_engine, open_shared_engine, path_of
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.certs.allowlist import AllowList
from airunner.certs.authority import Authority, NoVerifier
from airunner.certs.curve import CurvePair, load_broker_pair
from airunner.certs.home import Home
from airunner.certs.ownership import own_home, refuse_unsafe
from airunner.certs.sealed import change_secret, hint_key
from airunner.certs.tokenkeys import load_verifying_keys
from airunner.certs.tokenverifier import CachedVerifier, TokenVerifier
from airunner.protocol.errors import EXIT_BUG, OperatorError
from airunner.protocol.printable import own_lines
from airunner.transport.http import open_http
from airunner.transport.ports import SYSTEM
from airunner.transport.sockets import CurveRouter, bind_gatekeeper, open_context
from airunner.transport.workthread import WorkThread

BLOB_THREADS: Final = 2  # requests about blobs at once: they wait for the disk or a bucket
END_S: Final = 5.0  # for a server to finish what it was sent, when the broker ends


async def serve(settings: Settings, relay: Relay) -> None:
    """Run a broker until a signal."""
    home = own_home(os.environ)
    refuse_unsafe(home.store.parent)
    pair = load_broker_pair(home)
    authority = _authority(home, settings)
    counts = Counts()

    def say(line: str) -> None:
        _say(f"airunner broker: {line}")

    health = Health(say)
    health.watch(lambda: judge_descriptors(health))
    store_url = settings.store_url or f"sqlite:///{home.store}"
    aws = AwsUrl.parse(store_url) if is_aws(store_url) else None
    with ExitStack() as ends:
        embedded: SqliteEngine | None = None
        if aws is not None or is_postgres(store_url):
            ends.enter_context(locked_home(home.store.parent))
        else:
            embedded = ends.enter_context(closing(open_engine(store_url)))
        lines = NO_LINES if aws is None else ends.enter_context(open_lines(aws, say))  # before others see this broker
        context = ends.enter_context(open_context())
        allowed = AllowList(home.allowed_clients, _say)
        gatekeeper = Gatekeeper(
            bind_gatekeeper(context),
            allowed,
            counts,
            Rates(settings.connections_per_s, settings.connections_burst_s),
            admitted=lambda: judge_descriptors(health, may_clear=False),
        )
        async with anyio.create_task_group() as group:
            group.start_soon(_until_signal, group.cancel_scope)
            group.start_soon(gatekeeper.run, name="Gatekeeper")
            router = CurveRouter(context, pair, settings.listen)
            await relay.ready()
            group.start_soon(relay.run, counts, health, name="Relay")
            engine = embedded or ends.enter_context(
                _shared_engine(store_url, _identity(home, pair, settings, router.endpoint, relay.endpoint))
            )
            thread = ends.enter_context(_work_thread(engine))
            _watch(engine, health)
            group.start_soon(health.run, name="Health")
            path = None if embedded is None else path_of(store_url)
            broker = Broker(
                store=Store(engine),
                router=router,
                publisher=relay,
                authority=authority,
                edges=SYSTEM,
                offload=Stalls(thread, health, SERVER if engine.remote else DISK),
                counts=counts,
                disk=_disk_under(path, engine, embedded, settings, health),
                retention=settings.retention,
                machines=allowed.entry_for,
                quotas=settings.quotas,
                health=health,
                membership=None if engine.alone else Membership(relay, hint_key(pair.secret), say),
                change_secret=change_secret(pair.secret),
                lines=lines,
                searches=ends.enter_context(_thread()),
                blobs=_blobs(settings, home, engine, ends),
            )
            server = await open_http(settings.http)
            group.start_soon(server.run, broker_pages(health, broker.metrics(settings.tenants)), name="HttpServer")
            if path is not None and embedded is not None:
                control = await open_control(path, broker.ledger_inbox, embedded.copy_to)
                group.start_soon(control.run, name="ControlSocket")
            await group.start(broker.run, name="Broker")
            _say(f"airunner broker ready: requests {router.endpoint} events {relay.endpoint} http {server.address}")
    _say("airunner broker stopped")


def _watch(engine: Engine, health: Health) -> None:
    """Have /health say what is wrong with a store."""
    health.watch(lambda: judge_store(engine.damage, health))
    health.watch(lambda: judge_durability(engine.warnings, health))


def _shared_engine(url: str, identity: Identity) -> closing[Engine]:
    """Open the engine of a store of several brokers, among which this one has to have an identity."""
    return closing(open_shared_engine(url, identity, SYSTEM.wall_ms))


def _identity(home: Home, pair: CurvePair, settings: Settings, requests: str, events: str) -> Identity:
    """Say who this broker is to the others of its store. Raises `OperatorError`."""
    return Identity(
        broker=broker_id(home.store.parent, os.urandom),
        fleet=fleet_of(pair.public),
        requests=advertised(requests, settings.advertise),
        events=advertised(events, settings.advertise),
    )


@contextmanager
def _work_thread(engine: Engine) -> Generator[WorkThread]:
    """Run the thread of an engine. At the end the others of its store are told to adopt this broker's jobs at once.

    If the store is away then, they find out by themselves. For a server that does not answer nobody waits longer than
    `END_S`, not even for a batch that is being committed: the kernel closes what this process has open.
    """
    thread = WorkThread()
    failed: BaseException | None = None
    try:
        yield thread
    except BaseException as error:
        failed = error
        raise
    finally:
        last, within_s = (None, None) if engine.alone else (engine.retire, END_S)
        with suppress(StoreAway, Fenced):
            if not thread.close(last, within_s):
                _say("airunner broker stopped: the store's server did not answer; other brokers will adopt its jobs")
                os._exit(_say_why(failed))


def _blobs(settings: Settings, home: Home, engine: Engine, ends: ExitStack) -> Blobs | None:
    """Open the blob store, with its threads; None: several brokers, which have none together."""
    address = settings.blobs
    if address is None and engine.alone:
        address = MEMORY if settings.store_url == MEMORY else str(home.store.parent / "blobs")
    if address is None:
        return None
    store = open_blobs(address, settings.cache_bytes_max, lambda line: _say(f"airunner broker: {line}"))
    return Blobs(store, [ends.enter_context(_thread()) for _ in range(BLOB_THREADS)])


@contextmanager
def _thread() -> Generator[WorkThread]:
    """Run a thread of the Searcher or Blobkeeper; what is under way ends first."""
    thread = WorkThread()
    try:
        yield thread
    finally:
        thread.close()


def _say_why(failed: BaseException | None) -> int:
    """Say what has ended the broker, and return its exit code."""
    if failed is None:
        return 0
    if isinstance(failed, OperatorError):
        _say(failed.message)
        return failed.exit_code
    traceback.print_exception(failed)
    return EXIT_BUG


def _disk_under(
    path: Path | None, engine: Engine, embedded: SqliteEngine | None, settings: Settings, health: Health
) -> Disk | None:
    """Create the store's disk; it is measured at once, so that problems are reported before the broker is ready."""
    if embedded is None:
        return ServerDisk(health, lambda: engine.size_bytes, settings.store_bytes_max, settings.reserve_bytes)
    if path is None:
        return None
    disk = StoreDisk(path, embedded, settings.reserve_bytes, health)
    disk.look()
    return disk


def _authority(home: Home, settings: Settings) -> Authority:
    if settings.auth:
        return CachedVerifier(TokenVerifier(load_verifying_keys(os.environ, home, settings.public_key)))
    _say("warning: --no-auth accepts every request for the default tenant; the allow-list still controls who connects")
    return NoVerifier()


async def _until_signal(scope: anyio.CancelScope) -> None:
    """End the broker on SIGTERM or SIGINT; the batch that is being committed is finished first."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
            return


def _say(line: str) -> None:
    print(own_lines(line), file=sys.stderr, flush=True)
