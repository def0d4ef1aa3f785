"""Broker: creates its actors and the inboxes between them, and runs them; as a member of a fleet also the Fleet.

The caller provides the edges: sockets, disk, time and randomness. If an actor fails, the task group ends, and with it
the process: every confirmed request is on disk, and the supervisor starts another broker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import anyio
from anyio.abc import TaskStatus

from airunner.broker.admission import UNATTRIBUTED_PER_S, Admission, Machines, any_machine
from airunner.broker.announcer import Announcer
from airunner.broker.aws.actors import AwsActors, Surroundings
from airunner.broker.aws.opening import NO_LINES, Lines
from airunner.broker.blobs.keeper import Blobs
from airunner.broker.bus import LocalBus
from airunner.broker.changefeed import ChangeFeed
from airunner.broker.clock import Clock
from airunner.broker.counts import Counts
from airunner.broker.disk import Boundless, Disk
from airunner.broker.fairqueue import FairQueue
from airunner.broker.fleet import Fleet
from airunner.broker.fleetbus import FleetBus
from airunner.broker.gateway import Gateway
from airunner.broker.health import Health
from airunner.broker.inbox import ALARMS_MAX, BEATS_MAX, SWEEPS_MAX, Adopted, Alarm, Beaten, FleetInbox, Swept
from airunner.broker.janitor import Janitor, RetentionPlan
from airunner.broker.ledger import Ledger
from airunner.broker.metrics import BrokerMetrics
from airunner.broker.offload import Offload
from airunner.broker.outage import Outage
from airunner.broker.prices import UNITS_A_REQUEST
from airunner.broker.rates import Rates
from airunner.broker.roster import Roster
from airunner.broker.searcher import run_here
from airunner.broker.store.batch import Store
from airunner.broker.store.quotas import Quotas
from airunner.broker.store.rows import BrokerRow
from airunner.broker.timekeeper import Timekeeper
from airunner.broker.watchers import Watchers
from airunner.certs.authority import Authority
from airunner.protocol.replies import BrokerSummary
from airunner.transport.ports import Edges, PeerPublisher, Publisher, Router


class Membership(NamedTuple):
    """Membership in a fleet: how this broker hears the others, and the key that seals their hints to one another.

    `say` gets a line for the operator when this broker has adopted another one's jobs.
    """

    publisher: PeerPublisher
    key: bytes
    say: Callable[[str], None] = lambda _line: None


class Broker:
    """Broker: Gateway, Ledger, Timekeeper, Janitor, Announcer and ChangeFeed around one store.

    The caller runs the Gatekeeper. `change_secret` makes the keys of change streams and of workspaces' names; brokers
    of a fleet share it. `lines` are those to AWS: the actors in `broker.aws` use them. `searches` run the searches in
    logs, and `blobs` keep the files of jobs.
    """

    def __init__(
        self,
        store: Store,
        router: Router,
        publisher: Publisher,
        authority: Authority,
        edges: Edges,
        offload: Offload,
        counts: Counts,
        disk: Disk | None = None,
        retention: RetentionPlan | None = None,
        machines: Machines = any_machine,
        quotas: Quotas | None = None,
        health: Health | None = None,
        membership: Membership | None = None,
        change_secret: bytes = b"",
        lines: Lines = NO_LINES,
        searches: Offload = run_here,
        blobs: Blobs | None = None,
    ) -> None:
        self._store = store
        self._lines = lines
        self._router = router
        self._publisher = publisher
        self._edges = edges
        self._offload = offload
        self._searches = searches
        self._blobs = blobs
        self._counts = counts
        self._disk = disk or Boundless()
        self._retention = retention or RetentionPlan()
        self._quotas = quotas or Quotas()
        self._health = health or Health()
        self._membership = membership
        self._change_secret = change_secret
        self._fleet: Fleet | None = None
        self.ledger_inbox = FairQueue()
        self._roster = Roster()
        per_s = self._quotas.requests_per_s
        rates = Rates(None if per_s is None else per_s * UNITS_A_REQUEST)
        self._admission = Admission(authority, machines, rates, Rates(UNATTRIBUTED_PER_S))

    def metrics(self, tenants: Sequence[str]) -> BrokerMetrics:
        """Make the metrics of this broker, with names of the queues of these tenants only."""
        wall_ms = self._edges.wall_ms
        return BrokerMetrics(self._counts, self.ledger_inbox, self._store.engine, self._roster, wall_ms, tenants)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; `task_status` is started once requests are accepted."""
        to_timekeeper, timekeeper_inbox = anyio.create_memory_object_stream[Alarm](ALARMS_MAX)
        to_janitor, janitor_inbox = anyio.create_memory_object_stream[Swept](SWEEPS_MAX)
        to_fleet, fleet_inbox = anyio.create_memory_object_stream[Beaten | Adopted](BEATS_MAX)
        clock = Clock(self._edges.wall_ms)
        events_port = int(self._publisher.endpoint.rpartition(":")[2])
        outage = Outage(self._store, clock, self._health, self._edges.random)
        watchers = Watchers(self._quotas.watched_max)
        member = self._membership
        parted = (lambda: False) if member is None else (lambda: member.publisher.parted)
        feed = ChangeFeed(self._publisher, self._edges, self._counts, watchers, self._change_secret, parted)
        gateway = Gateway(
            self._router,
            self.ledger_inbox,
            self._admission,
            self._quotas,
            self._edges,
            events_port,
            self._counts,
            watchers,
            self._health,
            feed,
            self._roster,
            self._searches,
            self._show,
            self._blobs,
            self._change_secret,
        )
        announcer = Announcer(self._publisher, self._edges, self._counts, watchers)
        aws = self._aws(gateway, clock)
        local = LocalBus(gateway, announcer, to_timekeeper, aws.noting(feed.send))
        bus = self._join(local, gateway, fleet_inbox, aws)
        ledger = Ledger(
            self._store,
            self.ledger_inbox,
            aws.gateway,
            bus or local,
            to_janitor,
            clock,
            self._offload,
            self._disk,
            self._counts,
            charge=lambda command, cost: self._admission.charge(
                command.tenant, command.request, cost, self._edges.wall_ms()
            ),
            outage=outage,
            fleet=to_fleet,
        )
        timekeeper = Timekeeper(timekeeper_inbox, self.ledger_inbox, clock, self._edges)
        blobs, me = (None if self._blobs is None else self._blobs.store), self._store.engine.broker
        janitor = Janitor(janitor_inbox, self.ledger_inbox, clock, self._retention, self._is_first, blobs, me)
        async with (
            to_timekeeper,
            timekeeper_inbox,
            to_janitor,
            janitor_inbox,
            to_fleet,
            fleet_inbox,
            anyio.create_task_group() as group,
        ):
            feed.run_in(group)
            for actor in (announcer, timekeeper, janitor, ledger, gateway, self._fleet, aws):
                if actor is not None:
                    group.start_soon(actor.run, name=type(actor).__name__)
            task_status.started()

    def _aws(self, gateway: Gateway, clock: Clock) -> AwsActors:
        """Make the actors on AWS, of which there is none without lines."""
        engine = self._store.engine
        around = Surroundings(
            ledger=self.ledger_inbox,
            gateway=gateway,
            clock=clock,
            edges=self._edges,
            counts=self._counts,
            health=self._health,
            quotas=self._quotas,
            broker=engine.broker,
        )
        return AwsActors(self._lines, engine, around)

    def _join(self, local: LocalBus, gateway: Gateway, inbox: FleetInbox, aws: AwsActors) -> FleetBus | None:
        """Make the bus and the Fleet of a broker that is a member of a fleet; None: it is not."""
        if self._membership is None:
            return None
        engine = self._store.engine
        bus = FleetBus(
            local,
            self._membership.publisher,
            gateway,
            self._membership.key,
            engine.broker,
            lambda: engine.ready_seq,
            self.ledger_inbox.wake,
            self._edges,
            self._counts,
            engine.forget_places,
            aws.ring,
        )
        aws.looks = bus.make_ready
        self._fleet = Fleet(inbox, self.ledger_inbox, bus, engine.broker, self._membership.say, aws.adopted)
        return bus

    def _is_first(self) -> bool:
        return self._fleet is None or self._fleet.is_first

    def _show(self, row: BrokerRow) -> BrokerSummary:
        assert self._fleet is not None, "brokers were listed, but this one is in no fleet"
        return self._fleet.show(row)
