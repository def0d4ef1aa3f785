"""Tickets: bells, which say that queues have become ready, and timers, which say that a delay has ended.

```
 bus ── ring, note ──► Tickets ══► SQS ══► Tickets of any broker ── make_ready ──► its bus
                                                                 ── Expire ──────► its Ledger, when a delay is over
                                                                 ══ next link ═══► SQS, until then
```

A ticket says *look here*, and no more. Its receiver looks, and deletes it; to look for nothing is harmless.

- A **bell** names the queues of all batches since the last one: the first leaves at once, the next a second later. It
  is rung only while another broker is live: what is ready here is tried here anyway.
- A **timer** is a chain of messages, each delayed by SQS for 15 minutes at most, until its instant. A broker has one
  chain for all delays that end in the same minute, and none for a short one: leases and pauses between retries are
  their owner's business. The instant is rounded up, so the delay is over when the ticket comes; if a broker has missed
  it nevertheless, `Expire` makes it look, and requests that are parked there are tried.
- A chain does not multiply: a broker sends no second link of a chain while its first is under way, however often SQS
  delivers a ticket. Chains and links are bounded in number; what is beyond is left out, which is harmless too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Final

import anyio
import msgspec
from msgspec import Meta, Struct

from airunner.broker.aws.ports import BATCH_MAX, DELAY_S_MAX, AwsFault, Message, Queue
from airunner.broker.bus import EVERY_QUEUE
from airunner.broker.clock import Clock
from airunner.broker.counts import Counts
from airunner.broker.fairqueue import FairQueue
from airunner.broker.health import Health
from airunner.broker.lifecycle.commands import Expire
from airunner.broker.store.rows import Changes, QueueKey
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.names import MILLISECONDS_MAX
from airunner.transport.backoff import Backoff
from airunner.transport.bell import Bell

TICKET_BYTES_MAX: Final = 24_576  # of a ticket, so that a batch of them fits in a call; more queues are two tickets
READY_MAX: Final = 1_024  # queues that wait for the next bell; with more it says that every queue is ready
PACE_S: Final = 1.0  # between two calls that send: what happens meanwhile shares the next, which bounds the price
TIMER_MS_MIN: Final = 60_000  # a shorter delay has no timer: its owner, or who adopts it, is as quick
SLOT_MS: Final = 60_000  # delays that end in the same minute share a chain
CHAINS_MAX: Final = 256  # chains that a broker has begun and that are not over: some 3 requests each in 15 minutes
LINKS_MAX: Final = 4_096  # chains of all brokers of which this one remembers that it has sent a link
SLACK_S: Final = 2.0  # by which SQS may deliver a delayed message early, as this broker's clock has it
PAUSE_FIRST_MS: Final = 500  # bound of the first pause after a fault
PAUSE_LAST_MS: Final = 30_000
EMPTY_S: Final = 1.0  # least time between two answers without messages: SQS waits, but an emulator may not
CONDITION: Final = "bells"  # name of the condition in /health

Looks = Callable[[Collection[QueueKey] | None], None]
"""Callback that makes queues ready at the bus (None: every one), as a hint of another broker does."""


class Ready(Struct, frozen=True, tag="ready", tag_field="kind"):
    """Bell: these queues have jobs that may be leased; None: any queue may have some."""

    broker: str
    queues: list[QueueKey] | None


class Timer(Struct, frozen=True, tag="timer", tag_field="kind"):
    """Timer of a broker: a delay is over at `due_ms`. Broker and instant name the chain."""

    broker: str
    due_ms: Annotated[int, Meta(ge=0, le=MILLISECONDS_MAX)]


_decoder: Final = msgspec.json.Decoder(Ready | Timer)


class Tickets:
    """Tickets actor of the broker with the id `broker`.

    outgoing, incoming: two lines to the same queue, since one waits for messages
    random: number in [0, 1), for pauses after faults
    """

    def __init__(
        self,
        outgoing: Queue,
        incoming: Queue,
        ledger: FairQueue,
        looks: Looks,
        clock: Clock,
        broker: str,
        counts: Counts,
        health: Health,
        random: Callable[[], float],
    ) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._ledger = ledger
        self._looks = looks
        self._clock = clock
        self._broker = broker
        self._counts = counts
        self._health = health
        self._random = random
        self._more = Bell()
        self._ready: set[QueueKey] = set()  # of the next bell
        self._starting: set[int] = set()  # instants of chains to begin
        self._chains: set[int] = set()  # instants of this broker's chains
        self._links: dict[Timer, float] = {}  # by chain: when the link that this broker has sent is delivered
        self._faults: dict[Queue, AwsFault] = {}  # by line: the fault of its last call

    def ring(self, queues: Collection[QueueKey]) -> None:
        """Ring the bell: these queues have become ready, in a batch of this broker."""
        if not queues:
            return
        self._ready.update(queues)
        if len(self._ready) > READY_MAX:
            self._ready = {EVERY_QUEUE}
        self._more.ring()

    def note(self, changes: Changes) -> None:
        """Note the delays in the changes of a batch."""
        for job in changes.added:
            if job.due_ms is not None:
                self._delay(job.due_ms)
        for before, job in changes.changed:
            if job.due_ms is not None and job.due_ms != before.due_ms:
                self._delay(job.due_ms)

    def _delay(self, due_ms: int) -> None:
        """Begin a chain for a delay, unless it is short or there is one for its minute."""
        now_ms = self._clock.now_ms()
        if due_ms < now_ms + TIMER_MS_MIN:
            return
        instant_ms = math.ceil(due_ms / SLOT_MS) * SLOT_MS
        if instant_ms in self._chains:
            return
        if len(self._chains) >= CHAINS_MAX:
            self._chains = {known_ms for known_ms in self._chains if known_ms > now_ms}
            if len(self._chains) >= CHAINS_MAX:
                self._counts.add("tickets_left_out")
                return
        self._chains.add(instant_ms)
        self._starting.add(instant_ms)
        self._more.ring()

    async def run(self) -> None:
        """Send and receive tickets until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._send)
            group.start_soon(self._receive)

    async def _send(self) -> None:
        backoff = Backoff(self._random, PAUSE_FIRST_MS, PAUSE_LAST_MS)
        while True:
            while not self._ready and not self._starting:
                await self._more.wait()
            messages = self._take()
            if not messages:  # the links of these chains are under way already
                continue
            try:
                refused = await self._outgoing.send(messages)
            except AwsFault as fault:  # the tickets are lost, which is harmless; a broken line is reported
                self._note_fault(self._outgoing, fault)
                self._counts.add("tickets_lost", len(messages))
                await backoff.pause()
            else:
                backoff.reset()
                self._mend(self._outgoing)
                self._counts.add("tickets_sent", len(messages) - refused)
                self._counts.add("tickets_lost", refused)
            await anyio.sleep(PACE_S)

    def _take(self) -> list[Message]:
        """Take what is to be sent in one call; the rest waits for the next."""
        messages = self._bells()
        for due_ms in sorted(self._starting)[: BATCH_MAX - len(messages)]:
            self._starting.discard(due_ms)
            if (link := self._link(Timer(self._broker, due_ms))) is not None:
                messages.append(link)
        return messages

    def _bells(self) -> list[Message]:
        """Make the bells for all ready queues: some tickets, or one that says that every queue is ready."""
        ready, self._ready = self._ready, set()
        if not ready:
            return []
        tickets = [] if EVERY_QUEUE in ready else list(self._pieces(sorted(ready)))
        if not 0 < len(tickets) < BATCH_MAX:
            tickets = [Ready(self._broker, None)]
        return [Message(_encode(ticket)) for ticket in tickets]

    def _pieces(self, queues: Iterable[QueueKey]) -> Iterable[Ready]:
        """Divide queues into tickets that are small enough."""
        piece: list[QueueKey] = []
        size_bytes = 0
        for queue in queues:
            queue_bytes = len(json.dumps(queue)) + 1
            if piece and size_bytes + queue_bytes > TICKET_BYTES_MAX:
                yield Ready(self._broker, piece)
                piece, size_bytes = [], 0
            piece.append(queue)
            size_bytes += queue_bytes
        if piece:
            yield Ready(self._broker, piece)

    def _link(self, timer: Timer) -> Message | None:
        """Make the next link of a chain; None: this broker has sent it already, or there are too many chains."""
        now_s = anyio.current_time()
        if self._links.get(timer, 0.0) - SLACK_S > now_s:
            return None
        if len(self._links) >= LINKS_MAX:
            self._links = {chain: due_s for chain, due_s in self._links.items() if due_s > now_s}
            if len(self._links) >= LINKS_MAX:
                self._counts.add("tickets_left_out")
                return None
        left_s = math.ceil((timer.due_ms - self._clock.now_ms()) / 1_000)
        delay_s = max(0, min(DELAY_S_MAX, left_s))
        self._links[timer] = now_s + delay_s
        return Message(_encode(timer), delay_s)

    async def _receive(self) -> None:
        backoff = Backoff(self._random, PAUSE_FIRST_MS, PAUSE_LAST_MS)
        while True:
            began_s = anyio.current_time()
            try:
                received = await self._incoming.receive()
                if received:
                    links = await self._hear([message.body for message in received])
                    if links:  # before the tickets are deleted: a broker that dies between the two doubles a link
                        self._counts.add("tickets_lost", await self._incoming.send(links))
                    await self._incoming.delete([message.receipt for message in received])
            except AwsFault as fault:
                self._note_fault(self._incoming, fault)
                await backoff.pause()
                continue
            backoff.reset()
            self._mend(self._incoming)
            if not received:
                await anyio.sleep_until(began_s + EMPTY_S)

    async def _hear(self, bodies: Iterable[str]) -> list[Message]:
        """Look where tickets say; return the next links of chains."""
        links: list[Message] = []
        over = False
        for body in bodies:
            try:
                ticket = _decoder.decode(body)
            except UNDECODABLE:
                self._counts.add("tickets_dropped")
                continue
            self._counts.add("tickets_heard")
            match ticket:
                case Ready(queues=queues):
                    self._looks(queues)
                case Timer(due_ms=due_ms) if due_ms <= self._clock.now_ms():
                    over = True
                case Timer():
                    if (link := self._link(ticket)) is not None:
                        links.append(link)
        if over:
            await self._ledger.send(Expire())
            self._looks(None)
        return links

    def _note_fault(self, line: Queue, fault: AwsFault) -> None:
        self._faults[line] = fault
        self._health.degrade(
            CONDITION,
            f"the queue {line.name} cannot be used: {fault}; nothing is lost: brokers hear one another without it",
        )

    def _mend(self, line: Queue) -> None:
        """Note that a call of a line has succeeded; the condition is over when no line is at fault."""
        if self._faults.pop(line, None) is not None and not self._faults:
            self._health.clear(CONDITION)


def _encode(ticket: Ready | Timer) -> str:
    """Encode a ticket in ASCII: SQS does not take all characters."""
    return json.dumps(msgspec.to_builtins(ticket), separators=(",", ":"))
