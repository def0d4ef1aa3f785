"""Gateway: owns the ROUTER socket. Admits requests, forwards them to the Ledger and sends the replies.

A message that Admission refuses reaches no other actor. The token identifies the sender, and the key that the
Gatekeeper has accepted identifies its machine; a routing id (`peer`) is only the address of the reply.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, cast

import anyio.lowlevel
from anyio import WouldBlock
from msgspec.structs import replace

from airunner.broker.admission import REVOKED, Admission
from airunner.broker.blobs.keeper import Blobkeeper, Blobs
from airunner.broker.changefeed import KEY_MS, ChangeFeed
from airunner.broker.counts import Counts
from airunner.broker.fairqueue import FairQueue
from airunner.broker.health import Health
from airunner.broker.inbox import Nudged, Pending, Response
from airunner.broker.lifecycle.commands import (
    BlobsAsked,
    BrokersFound,
    LeasesCounted,
    LogFound,
    StreamsFound,
    TenantRequest,
    WatchKeyFound,
)
from airunner.broker.minting import mint
from airunner.broker.offload import Offload
from airunner.broker.prices import price_of_reply, price_of_search
from airunner.broker.requests import kind_of
from airunner.broker.roster import Roster
from airunner.broker.searcher import Searcher, run_here
from airunner.broker.store.quotas import Quotas
from airunner.broker.store.rows import BrokerRow
from airunner.broker.tarpit import Tarpit
from airunner.broker.watchers import Watchers
from airunner.certs.sealed import topic_of, workspace_key
from airunner.protocol.coding import encode, refusal
from airunner.protocol.errors import Busy, PeerError, Quota, Unauthenticated
from airunner.protocol.frames import FIRST, NO_REQUEST, SERVED, answerable, pack_reply
from airunner.protocol.names import RequestId
from airunner.protocol.replies import (
    BrokersListed,
    BrokerSummary,
    JobCompleted,
    JobEventsPublished,
    JobLease,
    JobReleasedReply,
    JobsLeased,
    JobsUpdated,
    JobWatched,
    LeaseVerdict,
    Nudge,
    Pong,
    Refused,
    Reply,
    TenantWatched,
    Verdict,
)
from airunner.protocol.requests import (
    CompleteJob,
    DequeueJob,
    ListAgents,
    Ping,
    PublishJobEvents,
    ReleaseJob,
    UpdateJob,
)
from airunner.transport.bell import Bell
from airunner.transport.ports import Edges, Incoming, Router, Sent

_log = logging.getLogger("airunner.gateway")
DELAY_MS_MAX: Final = 1_250  # longest delay of a rate-limit reply; the rest of a longer wait is the reply's `retry_ms`
AGENTS: Final = "agents"  # name of the condition in /health
_INCOMPLETE: Final = frozenset((WatchKeyFound, StreamsFound, LeasesCounted, BrokersFound, LogFound, BlobsAsked))
NUDGE_ID: Final = NO_REQUEST  # request id of a Nudge, which is no reply


def without_fleet(_row: BrokerRow) -> BrokerSummary:
    """Refuse to show a broker: this one is in no fleet, and its store lists none."""
    raise AssertionError("brokers were listed, but this one is in no fleet")


class Gateway:
    """Gateway actor; clients subscribe to live events at `events_port`, and `searches` run the searches in logs.

    `secret` makes the keys of workspaces' names; empty: agents make their own.
    """

    def __init__(
        self,
        router: Router,
        ledger: FairQueue,
        admission: Admission,
        quotas: Quotas,
        edges: Edges,
        events_port: int,
        counts: Counts,
        watchers: Watchers,
        health: Health,
        feed: ChangeFeed,
        roster: Roster | None = None,
        searches: Offload = run_here,
        show: Callable[[BrokerRow], BrokerSummary] = without_fleet,
        blobs: Blobs | None = None,
        secret: bytes = b"",
    ) -> None:
        self._router = router
        self._ledger = ledger
        self._admission = admission
        self._quotas = quotas
        self._edges = edges
        self._events_port = events_port
        self._counts = counts
        self._watchers = watchers
        self._health = health
        self._feed = feed
        self._roster = roster or Roster()
        self._searcher = Searcher(searches, self._searched)
        self._blobkeeper = Blobkeeper(blobs, self.send, edges.wall_ms, ledger)
        self._show = show
        self._secret = secret
        self._tarpit = Tarpit()
        self._earlier = Bell()
        self._next_delayed_ms = math.inf
        self._dequeuers: dict[tuple[str, RequestId], bytes] = {}  # who last sent each DequeueJob that is not answered

    async def run(self) -> None:
        """Receive requests, and send delayed replies, until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._router.serve, self._receive)
            group.start_soon(self._send_delayed)
            group.start_soon(self._searcher.run, name="Searcher")
            self._blobkeeper.run_in(group)

    def _receive(self, messages: Iterable[Incoming]) -> None:
        for incoming in messages:
            self._accept(incoming)
        self._ledger.wake()  # it may send replies at once: these need no second look at the allow-list
        self._admission.forget_entries()

    def send(self, responses: Sequence[Response | Nudged], /) -> None:
        """Send the replies and nudges of a batch."""
        for response in responses:
            if isinstance(response, Nudged):
                self._nudge(response)
            else:
                self._answer(response)
        self._admission.forget_entries()

    async def _send_delayed(self) -> None:
        """Send each delayed rate-limit reply when it is due."""
        while True:
            for delayed in self._tarpit.due(_now_ms()):
                self._send(delayed.peer, delayed.request_id, delayed.refused, delayed.revision)
                await anyio.lowlevel.checkpoint()  # thousands may be due at once
            self._next_delayed_ms = self._tarpit.next_ms() or math.inf
            with anyio.CancelScope(deadline=(self._next_delayed_ms + 1) / 1_000):
                await self._earlier.wait()

    def _accept(self, incoming: Incoming) -> None:
        try:
            pending = self._admit(incoming)
            if pending is not None:
                self._ledger.send_nowait(pending)
                if isinstance(pending.command.request, DequeueJob):
                    self._dequeuers[pending.command.tenant, pending.command.request_id] = incoming.peer
        except WouldBlock:
            self._refuse(incoming, Busy())
        except PeerError as error:
            self._refuse(incoming, error)

    def _admit(self, incoming: Incoming) -> Pending | None:
        """Admit a message: return the request for the Ledger; a Ping is answered here.

        Raises `PeerError`.
        """
        now_ms = self._edges.wall_ms()
        admitted = self._admission.admit(incoming.frames, incoming.key, now_ms)
        frames, request, principal = admitted.frames, admitted.request, admitted.principal
        if isinstance(request, Ping):
            pong = Pong(revisions=SERVED, ready=self._health.is_ready)
            self._send(incoming.peer, frames.request_id, pong, frames.revision)
            return None
        if _log.isEnabledFor(logging.DEBUG):
            name = type(request).__name__
            _log.debug("%s %s from %s of tenant %s", name, frames.request_id.hex(), principal.subject, principal.tenant)
        self._counts.add("requests")
        if isinstance(request, DequeueJob) and not self._health.is_ready:
            raise Busy  # its agent may leave for another broker, and a lease would later find nobody here
        if isinstance(request, (DequeueJob, UpdateJob)):
            self._roster.record_request(principal.tenant, request, now_ms)
            self._note_troubled(now_ms)
        kind = kind_of(request)
        command = TenantRequest(
            tenant=principal.tenant,
            request_id=frames.request_id,
            request=request,
            minted=mint(kind.mints(request), self._edges.random_bytes),
            quotas=self._quotas,
            queues=principal.queues,
            cache_labels=principal.cache_labels,
            workspace_key=workspace_key(self._secret, principal.tenant) if isinstance(request, DequeueJob) else b"",
        )
        price = kind.price(request)
        return Pending(incoming.peer, command, incoming.key, len(frames.body), frames.revision, price=price)

    def _note_troubled(self, now_ms: int) -> None:
        """Report in /health how many agents can run no jobs; agent names stay private to their tenants."""
        count = self._roster.troubled(now_ms)
        if count:
            agents = "1 agent reports that its machine" if count == 1 else f"{count} agents report that their machines"
            self._health.degrade(AGENTS, f"{agents} cannot run jobs now; `airunner agents` shows why")
        else:
            self._health.clear(AGENTS)

    def _refuse(self, incoming: Incoming, error: PeerError) -> None:
        named = answerable(incoming.frames)
        if named is None:
            self._counts.add("garbage")
            return
        request_id, revision = named
        refused = refusal(error)
        if refused.retry_ms is not None:
            delay_ms = min(refused.retry_ms, DELAY_MS_MAX)
            due_ms = _now_ms() + delay_ms
            later = replace(refused, retry_ms=refused.retry_ms - delay_ms)
            if self._tarpit.delay(due_ms, incoming.peer, request_id, later, revision):
                if due_ms < self._next_delayed_ms:
                    self._earlier.ring()
                return
        self._send(incoming.peer, request_id, refused, revision)

    def _answer(self, response: Response) -> None:
        """Complete a reply and send it, or have it made by another thread."""
        found = response.reply
        reply: Reply | None
        if type(found) not in _INCOMPLETE:
            reply = cast("Reply", found)
        elif isinstance(found, LogFound | BlobsAsked):
            reply = self._begin(response, found)
        else:
            reply = self._completed(response)
        if reply is not None:
            self._deliver(response, reply)

    def _completed(self, response: Response) -> Reply:
        """Complete a reply with what is known here."""
        match response.reply:
            case WatchKeyFound() as found:
                return self._watched(response, found)
            case StreamsFound(queues=queues):
                return self._tenant_watched(response, queues)
            case LeasesCounted(by_agent=by_agent):
                assert isinstance(response.command.request, ListAgents), "not a ListAgents, but leases were counted"
                command, after = response.command, response.command.request.after or ""
                return self._roster.page(command.tenant, after, by_agent, self._edges.wall_ms(), command.queues)
            case BrokersFound(brokers=rows):
                return BrokersListed(brokers=tuple(map(self._show, rows)))
            case _:
                raise AssertionError("this reply is complete")

    def _deliver(self, response: Response, reply: Reply) -> None:
        # Checked again: the request may have waited for long, and its key may have been removed since.
        listed = self._admission.listed(response.key, response.command.request)
        shown = reply if listed else refusal(Unauthenticated(REVOKED))
        sent = self._send(response.peer, response.command.request_id, shown, response.revision, response.command)
        self._note_holders(response, reply, delivered=listed and sent is Sent.DONE)
        if isinstance(response.command.request, DequeueJob):
            undelivered = not response.repeated and (sent is Sent.GONE or not listed)
            if self._forget_dequeuer(response) and undelivered and isinstance(reply, JobsLeased):
                self._release_undelivered(response, reply.leases)

    def _begin(self, response: Response, found: LogFound | BlobsAsked) -> Reply | None:
        """Begin what another thread does: the response is sent once it is there. Return a refusal if too many wait."""
        if isinstance(found, BlobsAsked) and found.reply is not None and not self._blobkeeper.has_store:
            return found.reply
        try:
            if isinstance(found, LogFound):
                self._searcher.search(response, found)
            else:
                self._blobkeeper.ask(response, found)
        except PeerError as error:
            return refusal(error)
        return None

    def _searched(self, response: Response, size_bytes: int) -> None:
        """Charge a search for the bytes in which it has searched, and send its reply."""
        command, price = response.command, price_of_search(size_bytes)
        self._admission.charge(command.tenant, command.request, price, self._edges.wall_ms())
        self.send([response])

    def _watched(self, response: Response, found: WatchKeyFound) -> Reply:
        topic, page = topic_of(found.watch_key), found.page
        try:
            self._watchers.grant(response.command.tenant, topic, response.key, self._edges.wall_ms())
        except Quota as refused:
            return page or refusal(refused)
        watched = JobWatched(watch_key=found.watch_key, events_port=self._events_port)
        return replace(page, watched=watched) if page else watched

    def _tenant_watched(self, response: Response, queues: Sequence[str]) -> Reply:
        tenant, now_ms = response.command.tenant, self._edges.wall_ms()
        granted = self._feed.watch(tenant, queues)
        try:
            for topic, _ in granted:
                self._watchers.grant(tenant, topic, response.key, now_ms)
        except Quota as refused:
            return refusal(refused)
        streams = tuple(stream for _, stream in granted)
        return TenantWatched(streams=streams, events_port=self._events_port, valid_ms=KEY_MS)

    def _note_holders(self, response: Response, reply: Reply, *, delivered: bool) -> None:
        """Record in the Roster which connection holds the leases in the reply; forget those that the request ended."""
        tenant = response.command.tenant
        match reply:
            case JobsLeased(leases=leases) if delivered:
                self._record_holders(response, leases)
            case JobsUpdated(leases=verdicts) if delivered:
                self._record_holders(response, [kept for kept in verdicts if kept.verdict is not Verdict.LOST])
            case JobEventsPublished(completions=completions):
                assert isinstance(response.command.request, PublishJobEvents), "reply to another kind of request"
                for completion, completed in zip(response.command.request.completions, completions, strict=True):
                    if isinstance(completed, JobCompleted):
                        self._roster.forget_holder(tenant, completion.lease.job_id)
            case JobCompleted() | JobReleasedReply():
                assert isinstance(response.command.request, CompleteJob | ReleaseJob), "reply to another request"
                self._roster.forget_holder(tenant, response.command.request.lease.job_id)
            case _:
                pass

    def _record_holders(self, response: Response, leases: Sequence[JobLease | LeaseVerdict]) -> None:
        request = response.command.request
        assert isinstance(request, DequeueJob | UpdateJob), "leases in the reply to another request"
        tenant, now_ms = response.command.tenant, self._edges.wall_ms() if leases else 0
        for lease in leases:
            self._roster.record_holder(tenant, lease.job_id, lease.attempt, response.peer, request.agent, now_ms)

    def _nudge(self, nudged: Nudged) -> None:
        """Send a Nudge to the agents that hold these jobs; a lost Nudge is harmless, since agents send heartbeats."""
        for peer in {self._roster.holder(nudged.tenant, job_id) for job_id in nudged.job_ids} - {None}:
            assert peer is not None, "unknown holder"
            self._send(peer, NUDGE_ID, Nudge(), FIRST)

    def _forget_dequeuer(self, response: Response) -> bool:
        """Forget the sender of a DequeueJob; False: a repeat from another connection is waiting, and is remembered."""
        key = (response.command.tenant, response.command.request_id)
        newest = self._dequeuers.get(key, response.peer) == response.peer
        if newest:
            self._dequeuers.pop(key, None)
        return newest

    def _send(
        self, peer: bytes, request_id: RequestId, reply: Reply, revision: int, payer: TenantRequest | None = None
    ) -> Sent:
        if isinstance(reply, Refused):
            self._counts.add("requests_refused")
        body = encode(reply)
        if _log.isEnabledFor(logging.DEBUG):
            kind = reply.code if isinstance(reply, Refused) else type(reply).__name__
            _log.debug("reply to %s: %s, %d bytes", request_id.hex(), kind, len(body))
        if payer is not None and (price := price_of_reply(len(body))):
            self._admission.charge(payer.tenant, payer.request, price, self._edges.wall_ms())
        sent = self._router.send(peer, pack_reply(request_id, body, revision))
        if sent is not Sent.DONE:
            self._counts.add("replies_undelivered")
        return sent

    def _release_undelivered(self, response: Response, leases: tuple[JobLease, ...]) -> None:
        """Release leases whose agent is gone or not listed, so that other agents need not wait for their expiry.

        A lease that another connection has received is not released: of two copies of a DequeueJob on two connections
        the older may be received last. Nor are leases that were granted before released, if there are several brokers:
        when an agent changes to another broker, its request may still be parked here.
        """
        dequeued = response.command
        for lease in leases:
            if self._roster.has_holder(dequeued.tenant, lease.job_id, lease.attempt):
                continue
            release = TenantRequest(
                tenant=dequeued.tenant,
                request_id=dequeued.request_id,
                request=ReleaseJob(lease=lease.ref),
                deadline_ms=response.deadline_ms,
            )
            with suppress(WouldBlock):  # when the queue is full, the leases expire after their visibility timeout
                self._ledger.send_nowait(Pending(None, release))


def _now_ms() -> int:
    """Read anyio's clock (ms)."""
    return int(anyio.current_time() * 1_000)
