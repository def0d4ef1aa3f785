"""Pool of clients: one open SDK client for each token, all on one ZeroMQ context and with this server's own key.

```
 request ── token ──► Clients ──► Client (open: its own task holds it)  ──CURVE──► broker
            │           └ idle: the least recently used is closed when there are `CLIENTS_MAX`
            └ not proven: one small request first, a few at a time
```

A token is proven when the broker has accepted it, or when it comes from a cookie, which only this server can seal. One
that is not may be made up. It gets a client only after it is proven, `PROVING_MAX` at a time, and each that is refused
takes `REFUSED_S`. So made-up tokens use up neither the clients nor the broker's limits for this machine, and delay no
proven token.

A client is entered and left by a task of its own, because requests come and go. It waits for an absent broker for ever,
as its streams do; `asking` bounds the wait of one request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from hashlib import blake2b
from types import TracebackType
from typing import Final, Self

import anyio
import msgspec
from anyio.abc import TaskStatus

from airunner.client.client import Client
from airunner.client.reach import Reach
from airunner.protocol.errors import EXIT_UNAVAILABLE, Busy, Forbidden, NotFound, OperatorError, Unauthenticated
from airunner.protocol.names import JobId
from airunner.transport.patience import Patience

CLIENTS_MAX: Final = (
    256  # tokens in use at a time, as of browsers with an open page: each takes 0.1 MB and 8 descriptors
)
PROVEN_MAX: Final = 10_000  # proven tokens remembered by their hashes: some 1 MB
PROVING_MAX: Final = 4  # tokens that are proven at a time
WAITING_MAX: Final = 32  # requests that wait for that; further ones are refused at once
NO_JOB: Final = JobId("00000000-0000-0000-0000-000000000000")  # ids are random: there is none of this
REFUSED_S: Final = 0.2  # so 20 a second are refused; the broker grants a machine 100 connections a second
ANSWER_S: Final = 5.0  # for the broker to answer a request: a page that says so is better than one that does not come


class BrokerAway(OperatorError):
    """The broker does not answer. It may have got a request that changes something, and do it nevertheless."""

    def __init__(self, advice: str = "try again in a moment") -> None:
        super().__init__(f"the broker does not answer; {advice}", exit_code=EXIT_UNAVAILABLE)


class _Opened:
    """Open client, the number of its users, and how to let its task close it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.users = 0
        self.broken = False
        self.leave = anyio.Event()


class Clients:
    """Pool of clients; an async context manager, which closes them all.

    `reach` is the access of each client but for its token. `report` is called with one line about the broker, such as
    that it refuses this server's key.
    """

    def __init__(self, reach: Reach, report: Callable[[str], None], clients_max: int = CLIENTS_MAX) -> None:
        self._reach = reach
        self._patience = Patience(doubt=report)
        self._clients_max = clients_max
        self._open: dict[str, _Opened] = {}  # by token, the least recently used first
        self._proven: dict[bytes, None] = {}  # hashes of tokens, the oldest first
        self._proving = anyio.Semaphore(PROVING_MAX)
        self._waiting = 0
        self._opening = anyio.Lock()
        self._group = anyio.create_task_group()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Close every client: streams that still use one end."""
        self._group.cancel_scope.cancel()
        try:
            return await self._group.__aexit__(kind, error, trace)
        finally:
            self._reach.close()

    @asynccontextmanager
    async def of(self, token: str) -> AsyncGenerator[Client]:
        """Use the client of a token, for any time: it waits for a broker that is away.

        Raises `Busy`, and the errors of `prove`.
        """
        await self.prove(token)
        opened = await self._opened(token)
        opened.users += 1
        try:
            yield opened.client
        except OperatorError:
            opened.broken = True  # this broker refuses it for good: the next request tries again with another
            raise
        finally:
            opened.users -= 1
            if opened.broken and self._open.get(token) is opened:
                del self._open[token]
            if not opened.users and self._open.get(token) is not opened:
                opened.leave.set()

    @asynccontextmanager
    async def asking(self, token: str, within_s: float = ANSWER_S) -> AsyncGenerator[Client]:
        """Use the client of a token for a request that has to be answered soon. Raises `BrokerAway`, `Busy`."""
        try:
            with anyio.fail_after(within_s):
                async with self.of(token) as client:
                    yield client
        except TimeoutError as error:
            raise BrokerAway from error

    def vouch(self, token: str) -> None:
        """Count a token as proven: it was sealed by this server, or the broker has accepted it."""
        self._proven[_hash(token)] = None
        if len(self._proven) > PROVEN_MAX:
            del self._proven[next(iter(self._proven))]

    async def prove(self, token: str) -> None:
        """Find out whether the broker accepts a token that is not known.

        Raises `Unauthenticated`: it does not; `BrokerAway`; `Busy`: too many tokens are being proven.
        """
        if _hash(token) in self._proven:
            return
        if self._waiting >= WAITING_MAX:
            raise Busy("too many tokens that this server has not seen before are sent: try again in a moment")
        self._waiting += 1
        try:
            with anyio.fail_after(ANSWER_S):
                async with self._proving:
                    await self._try(token)
        except TimeoutError as error:
            raise BrokerAway from error
        finally:
            self._waiting -= 1
        self.vouch(token)

    async def _try(self, token: str) -> None:
        """Send a small request with a token. Raises `Unauthenticated`, `Busy` and `Quota`."""
        async with Client(reach=self._reach_of(token), patience=self._patience) as client:
            try:
                await client.get(NO_JOB)
            except (NotFound, Forbidden):
                return  # the token was accepted
            except Unauthenticated:
                await anyio.sleep(REFUSED_S)
                raise

    async def _opened(self, token: str) -> _Opened:
        """Find the open client of a token, or open one. Raises `Busy`: all are in use."""
        async with self._opening:
            if (opened := self._open.pop(token, None)) is None:
                self._make_room()
                opened = await self._group.start(self._hold, token)
            self._open[token] = opened
            return opened

    def _make_room(self) -> None:
        if len(self._open) < self._clients_max:
            return
        idle = next((token for token, opened in self._open.items() if not opened.users), None)
        if idle is None:
            raise Busy(f"this server is used with {self._clients_max} tokens at once, which is all that it can")
        self._open.pop(idle).leave.set()

    async def _hold(self, token: str, *, task_status: TaskStatus[_Opened]) -> None:
        """Hold a client open until it is to be left; its errors are those of its requests."""
        async with Client(reach=self._reach_of(token), patience=self._patience) as client:
            opened = _Opened(client)
            task_status.started(opened)
            await opened.leave.wait()

    def _reach_of(self, token: str) -> Reach:
        secret = token.encode()
        return msgspec.structs.replace(self._reach, token=lambda: secret, close=lambda: None)


def _hash(token: str) -> bytes:
    return blake2b(token.encode(), digest_size=16).digest()
