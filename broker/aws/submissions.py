"""Submissions: submits the jobs that EventBridge Scheduler sends to a queue of SQS, as clients submit theirs.

```
 Scheduler ═► queue ═► Submissions ── EnqueueJob ──► Ledger      the message is deleted when the jobs are stored
                                   ◄── JobsEnqueued ─┘
```

A message is a JSON object; `jobs` has the fields of docs/PROTOCOL.md, with the bounds and the errors of a request, and
no others:

```json
{"schedule": "nightly", "instant": "<aws.scheduler.scheduled-time>", "tenant": "default", "jobs": [{"command": "make"}]}
```

- The request id is a hash of schedule and instant. So what SQS delivers twice, or two brokers receive, is submitted
  once; the same instant with other jobs is a conflict.
- A message that cannot be submitted is not deleted: SQS delivers it some times, for a queue may be drained and a tenant
  at its quota only for a while, and then moves it to the dead-letter queue. The broker says once what is wrong with it.
- Who may send to the queue may submit, for the tenants that `submitters` names: IAM has authorised the sender, and
  there is no token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, Final, cast

import anyio
import msgspec
from anyio import WouldBlock
from msgspec import Meta, Struct

from airunner.broker.aws.ports import AwsFault, Queue, Received
from airunner.broker.counts import Counts
from airunner.broker.fairqueue import FairQueue
from airunner.broker.health import Health
from airunner.broker.inbox import Nudged, Pending, Response, ToGateway
from airunner.broker.lifecycle.commands import StoreReply, TenantRequest
from airunner.broker.minting import mint
from airunner.broker.requests import decode, kind_of
from airunner.broker.store.quotas import Quotas
from airunner.certs.principal import DEFAULT_TENANT
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.coding import refusal
from airunner.protocol.errors import BadRequest, Busy, Forbidden, PeerError
from airunner.protocol.fields import JobSpec
from airunner.protocol.names import REQUEST_ID_BYTES, Name, RequestId, nearest
from airunner.protocol.replies import JobsEnqueued, Refused
from airunner.protocol.requests import EnqueueJob
from airunner.transport.backoff import Backoff
from airunner.transport.ports import Edges

PEER: Final = b""  # routing id of this actor among those of clients: a ROUTER socket gives none an empty one
SCHEDULE_CHARS_MAX: Final = 256
INSTANT_CHARS_MAX: Final = 64
NAMED_MAX: Final = 1_024  # messages of which it is remembered that the broker has said what is wrong with them
EMPTY_S: Final = 1.0  # least time between two answers without messages: SQS waits, but an emulator may not
PAUSE_FIRST_MS: Final = 500  # bound of the first pause after a fault
PAUSE_LAST_MS: Final = 30_000
CONDITION: Final = "submissions"  # name of the condition in /health
SCHEDULED_TIME: Final = "<aws.scheduler.scheduled-time>"  # which Scheduler replaces with the instant


class Submission(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Submission of a schedule at one of its instants."""

    schedule: Annotated[str, Meta(min_length=1, max_length=SCHEDULE_CHARS_MAX)]
    instant: Annotated[str, Meta(max_length=INSTANT_CHARS_MAX)]
    tenant: Name = DEFAULT_TENANT
    jobs: list[Any]


_decoder: Final = msgspec.json.Decoder(Submission)


def parse(body: str) -> tuple[Submission, EnqueueJob]:
    """Parse a message: return it, and its request, decoded as a client's is. Raises `BadRequest`."""
    try:
        submission = _decoder.decode(body)
        _require_known(submission.jobs)
        datetime.fromisoformat(submission.instant)
        packed = msgspec.msgpack.encode({"type": EnqueueJob.__name__, "jobs": submission.jobs})
    except UNDECODABLE as error:
        raise BadRequest(f"the message is no submission: {error}") from error
    except ValueError as error:
        raise BadRequest(f"instant: write {SCHEDULED_TIME} in the schedule, or an instant of ISO 8601") from error
    except OverflowError as error:
        raise BadRequest("a number is too large") from error
    request = decode(packed)[0]
    assert isinstance(request, EnqueueJob), "another request than the one that was encoded"
    return submission, request


def _require_known(jobs: Sequence[object]) -> None:
    """Require that jobs have no other fields than job specs: a schedule is written by hand, and may have a typo.

    Of clients they are accepted, since these may be newer than the broker. Raises `BadRequest`.
    """
    for at, job in enumerate(jobs):
        for name in cast("dict[str, object]", job) if isinstance(job, dict) else ():
            if name not in JobSpec.__struct_encode_fields__:
                near = nearest(name, JobSpec.__struct_encode_fields__)
                raise BadRequest(f"jobs[{at}] has no field {name!r}" + (f": write {near}" if near else ""))


def request_id_of(submission: Submission) -> RequestId:
    """Derive the request id of a schedule's instant, which is the same each time that it is delivered."""
    named = msgspec.msgpack.encode((submission.schedule, submission.instant))
    return RequestId(blake2b(named, digest_size=REQUEST_ID_BYTES, person=b"airunner instant").digest())


class Submissions:
    """Submissions actor; for the Ledger it stands before the Gateway, and takes the responses to its own requests out.

    submitters: tenants whose jobs may be submitted
    say: gets one line for each message that cannot be submitted
    """

    def __init__(
        self,
        queue: Queue,
        ledger: FairQueue,
        gateway: ToGateway,
        submitters: frozenset[str],
        quotas: Quotas,
        edges: Edges,
        counts: Counts,
        health: Health,
        say: Callable[[str], None],
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._gateway = gateway
        self._submitters = submitters
        self._quotas = quotas
        self._edges = edges
        self._counts = counts
        self._health = health
        self._say = say
        self._replies: dict[tuple[str, RequestId], StoreReply] = {}
        self._waits: dict[tuple[str, RequestId], anyio.Event] = {}
        self._named: dict[str, None] = {}  # messages that were said to be wrong, the first ones first

    def send(self, items: Sequence[Response | Nudged], /) -> None:
        """Take the responses to submissions out of those of a batch, and pass the others to the Gateway."""
        others: list[Response | Nudged] = []
        for item in items:
            if isinstance(item, Response) and item.peer == PEER:
                key = item.command.tenant, item.command.request_id
                self._replies[key] = item.reply
                self._waits[key].set()
            else:
                others.append(item)
        if others:
            self._gateway.send(others)

    async def run(self) -> None:
        """Receive messages and submit their jobs, until cancelled."""
        backoff = Backoff(self._edges.random, PAUSE_FIRST_MS, PAUSE_LAST_MS)
        while True:
            began_s = anyio.current_time()
            try:
                received = await self._queue.receive()
                if stored := [message.receipt for message in received if await self._is_stored(message)]:
                    await self._queue.delete(stored)
            except AwsFault as fault:
                self._health.degrade(
                    CONDITION, f"the queue {self._queue.name} cannot be used: {fault}; what schedules send waits there"
                )
                await backoff.pause()
                continue
            backoff.reset()
            self._health.clear(CONDITION)
            if not received:
                await anyio.sleep_until(began_s + EMPTY_S)

    async def _is_stored(self, message: Received) -> bool:
        """Submit the jobs of a message; return whether they are stored, so that it may be deleted."""
        try:
            submission, request = parse(message.body)
        except BadRequest as error:
            self._name(message, "", refusal(error))
            return False
        try:
            reply = await self._submit(submission, request, len(message.body))
        except PeerError as error:
            reply = refusal(error)
        if isinstance(reply, JobsEnqueued):
            self._counts.add("submissions")
            return True
        assert isinstance(reply, Refused), "a reply to another request"
        self._name(message, f" of schedule {submission.schedule!r} at {submission.instant}", reply)
        return False

    async def _submit(self, submission: Submission, request: EnqueueJob, size_bytes: int) -> StoreReply:
        """Have the Ledger submit jobs, and wait for its reply. Raises `Forbidden`, `Busy`."""
        if submission.tenant not in self._submitters:
            raise Forbidden(
                f"schedules may not submit for tenant {submission.tenant}: name it with submitters= in --store"
            )
        kind = kind_of(request)
        command = TenantRequest(
            tenant=submission.tenant,
            request_id=request_id_of(submission),
            request=request,
            minted=mint(kind.mints(request), self._edges.random_bytes),
            quotas=self._quotas,
        )
        key = command.tenant, command.request_id
        ended = self._waits[key] = anyio.Event()
        try:
            self._ledger.send_nowait(Pending(PEER, command, size_bytes=size_bytes, price=kind.price(request)))
            self._ledger.wake()
            await ended.wait()
            return self._replies.pop(key)
        except WouldBlock as error:
            raise Busy from error
        finally:
            del self._waits[key]

    def _name(self, message: Received, of: str, refused: Refused) -> None:
        """Say what is wrong with a message, once for all of its deliveries."""
        if message.message_id in self._named:
            return
        self._counts.add("submissions_refused")
        self._named[message.message_id] = None
        if len(self._named) > NAMED_MAX:
            del self._named[next(iter(self._named))]
        self._say(
            f"submission {message.message_id}{of} is refused: {refused.code}: {refused.message}; SQS delivers it some "
            "times more, and then moves it to the dead-letter queue"
        )
