"""The broker's edges as tests hand them in: a router that remembers, a store that is told when to commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from trio.testing import wait_all_tasks_blocked

from airunner.broker.inbox import Pending
from airunner.broker.lifecycle.commands import Applied, Command, Done, TenantRequest
from airunner.broker.offload import Then, Work
from airunner.broker.requests import kind_of
from airunner.broker.store.room import Room
from airunner.certs.principal import Principal, Role
from airunner.protocol.coding import decode_reply, encode
from airunner.protocol.errors import NoSpace, Unauthenticated
from airunner.protocol.fields import JobSpec
from airunner.protocol.frames import pack_request, unpack_reply
from airunner.protocol.names import JobId, RequestId
from airunner.protocol.replies import JobLease, Reply
from airunner.protocol.requests import DequeueJob, EnqueueJob, Request, StoreRequest
from airunner.transport.ports import Accept, Edges, Incoming, Sent

WALL_MS = 1_760_000_000_000
LEASE = JobLease(job_id=JobId("j"), attempt=1, task_token=bytes(32), visibility_ms=60_000, spec=JobSpec(command="true"))
T = TypeVar("T")
_numbers = cycle(range(1, 60_000))


def edges() -> Edges:
    """A wall that stands still, and randomness that repeats itself in no test."""
    return Edges(
        wall_ms=lambda: WALL_MS,
        random=lambda: 0.5,
        random_bytes=lambda size: b"".join(next(_numbers).to_bytes(2, "little") for _ in range(size // 2)),
    )


def request_id(number: int) -> RequestId:
    return RequestId(number.to_bytes(16, "big"))


def enqueue(*commands: str, queue: str = "default") -> EnqueueJob:
    return EnqueueJob(jobs=tuple(JobSpec(command=command, queue=queue) for command in commands))


def dequeue(
    *queues: str, wait_ms: int = 0, slots: int = 1, seed: bytes = bytes(32), tags: dict[str, str] | None = None
) -> DequeueJob:
    return DequeueJob(
        agent="a",
        queues=queues or ("default",),
        slots=slots,
        visibility_ms=60_000,
        wait_ms=wait_ms,
        token_seed=seed,
        tags=tags or {},
    )


def asked(number: int, request: StoreRequest, peer: bytes | None = b"peer", tenant: str = "default") -> Pending:
    command = TenantRequest(tenant=tenant, request_id=request_id(number), request=request)
    return Pending(peer, command, price=kind_of(request).price(request))


@asynccontextmanager
async def acting(run: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """The actor runs while the block does."""
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await wait_all_tasks_blocked()
        yield
        group.cancel_scope.cancel()


class FakeRouter:
    """A door in memory: `hear` brings a message in, `said` holds what went out."""

    endpoint = "tcp://127.0.0.1:1"

    def __init__(self) -> None:
        self.gone: set[bytes] = set()
        self._said_in: MemoryObjectSendStream[tuple[bytes, RequestId, Reply]]
        self.said: MemoryObjectReceiveStream[tuple[bytes, RequestId, Reply]]
        self._said_in, self.said = anyio.create_memory_object_stream(10_000)
        self._in, self._out = anyio.create_memory_object_stream[Incoming](10_000)

    def hear(self, request: Request, number: int = 1, peer: bytes = b"peer", token: bytes = b"") -> None:
        self.hear_frames(pack_request(request_id(number), token, encode(request)), peer)

    def hear_frames(self, frames: list[bytes], peer: bytes = b"peer") -> None:
        self._in.send_nowait(Incoming(peer, "local", frames))

    async def serve(self, accept: Accept) -> None:
        async for incoming in self._out:
            accept([incoming])

    def send(self, peer: bytes, frames: Sequence[bytes]) -> Sent:
        if peer in self.gone:
            return Sent.GONE
        number, body = unpack_reply(frames)
        self._said_in.send_nowait((peer, number, decode_reply(body)))
        return Sent.DONE

    def close(self) -> None:
        for stream in (self._said_in, self.said, self._in, self._out):
            stream.close()


class FakeAuthority:
    """The token says its roles, and after an `@` its tenant; none is no token."""

    def known(self, token: bytes, now_s: float) -> Principal | None:
        return self.verify(token, now_s) if token else None

    def verify(self, token: bytes, now_s: float) -> Principal:
        assert now_s == WALL_MS / 1_000
        if not token:
            raise Unauthenticated
        roles, _, tenant = token.decode().partition("@")
        return Principal("s", tenant or "acme", frozenset(map(Role, roles.split(","))), 1e12)


class ScriptedStore:
    """A store double for the order of effects: it remembers the batches and answers as it is told."""

    def __init__(self, answer: Callable[[Command], Done]) -> None:
        self.answer = answer
        self.batches: list[list[Command]] = []
        self.next_due_ms: int | None = None
        self.failure: Exception | None = None
        self.full_for: type | tuple[type, ...] = ()  # there is no room for a batch with such a request or command
        self.full_at: Room | None = None  # nor for one with a request at this room
        self.wrote = True  # what it says of each batch
        self.full_times = 0  # nor so often, whatever is in it

    batch_max = 256
    remote = False

    def read(self, commands: Sequence[TenantRequest]) -> list[Done]:
        return self.stage(commands, 0).done

    def commit(self) -> None:
        """Nothing is written."""

    def write_back(self) -> None:
        """Nothing is in a journal."""

    def stage(self, commands: Sequence[Command], now_ms: int) -> Applied:
        del now_ms
        self.batches.append(list(commands))
        if self.failure is not None:
            raise self.failure
        self.full_times -= 1
        if self.full_times >= 0 or any(self._is_full_for(command) for command in commands):
            raise NoSpace
        return Applied([self.answer(command) for command in commands], self.next_due_ms, self.wrote)

    def _is_full_for(self, command: Command) -> bool:
        if not isinstance(command, TenantRequest):
            return isinstance(command, self.full_for)
        return isinstance(command.request, self.full_for) or command.room is self.full_at

    def close(self) -> None:
        """Nothing is held."""


class Disk:
    """An `Offload` whose commits reach the disk when the test says so."""

    def __init__(self) -> None:
        self.slow = False
        self.committing = anyio.Event()
        self.waiting: list[tuple[Work, Then]] = []

    def __call__(self, work: Work, then: Then) -> None:
        self.waiting.append((work, then))
        if self.slow:
            self.committing.set()
        else:
            self.let_go()

    def hold(self) -> None:
        self.slow = True
        self.committing = anyio.Event()

    def let_go(self) -> None:
        self.slow = False
        while self.waiting:
            work, then = self.waiting.pop()
            failed: Exception | None = None
            try:
                work()
            except Exception as error:  # noqa: BLE001 - `then` gets it
                failed = error
            then(failed)


class Inbox(Generic[T]):
    """What an actor gets by direct calls, for a test to receive."""

    def __init__(self, length_max: float = 100) -> None:
        self._in, self.received = anyio.create_memory_object_stream[T](length_max)
        self.send_nowait = self.send = self._in.send_nowait

    def close(self) -> None:
        self._in.close()
        self.received.close()


class ToLedger(Generic[T]):
    """The Ledger's inbox, as a stream that the test receives from."""

    def __init__(self, length_max: float = 16) -> None:
        self._in, self.received = anyio.create_memory_object_stream[T](length_max)
        self.send_nowait, self.send = self._in.send_nowait, self._in.send

    def wake(self) -> None:
        """The test's task waits for the entries themselves."""

    def close(self) -> None:
        self._in.close()
        self.received.close()
