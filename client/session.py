"""Session of a client: its connection, which is open inside of `async with`, and the requests that it sends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

import anyio
import msgspec

from airunner.client.follower import PAGES_MAX, Connection
from airunner.client.live import LiveEvents
from airunner.client.reach import Reach, reach
from airunner.client.refusals import refusal_of
from airunner.protocol.errors import BadRequest, ClientNotOpen, NotFound, OperatorError
from airunner.protocol.message import Asking, Message
from airunner.protocol.names import RequestId
from airunner.protocol.replies import Page
from airunner.transport.channel import Channel
from airunner.transport.patience import Patience

FIRST_PATIENCE_S: Final = 10.0
PATIENCE: Final = Patience(first_s=FIRST_PATIENCE_S)
"""Default patience: gives up if no broker answers at first, but waits for ever for a broker that answered before."""

_Reply = TypeVar("_Reply", bound=Message)
_Page = TypeVar("_Page", bound=Page)
_T = TypeVar("_T")


class Session:
    """Session with the first broker that answers; see `Client`, which adds the requests."""

    def __init__(
        self,
        broker: str | Sequence[str] | None = None,
        *,
        token: str | None = None,
        home: str | Path | None = None,
        patience: Patience = PATIENCE,
        reach: Reach | None = None,
        token_file: str | Path | None = None,
    ) -> None:
        self._broker = broker
        self._token = token
        self._home = home
        self._token_file = token_file
        self._patience = patience
        self._reach = reach
        self._open: Connection | None = None

    async def __aenter__(self) -> Self:
        """Open the client; it connects with the first request. Raises the errors of `reach`."""
        if self._open is not None:
            raise OperatorError("this client is open already; make another one for another block")
        access = self._reach or reach(self._broker, self._token, self._home, token_file=self._token_file)
        group = anyio.create_task_group()
        channel = Channel(access.network, access.endpoints, access.token, access.edges, self._patience)
        await group.__aenter__()
        live = LiveEvents(access.network, group)
        self._open = Connection(access, group, channel, live, anyio.Semaphore(PAGES_MAX), closing=set())
        await group.start(channel.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Close the client; every follower ends."""
        connection = self._entered
        for close in tuple(connection.closing):
            await close()
        self._open = None
        connection.group.cancel_scope.cancel()
        try:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                return await connection.group.__aexit__(kind, error, trace)
            # The caller's own error propagates as it is, not wrapped in an exception group.
            await connection.group.__aexit__(None, None, None)
            return None
        finally:
            connection.reach.close()

    if not TYPE_CHECKING:  # type checkers say it themselves

        def __enter__(self) -> None:
            """Refuse `with`. Raises `ClientNotOpen`."""
            raise ClientNotOpen("this client is for `async with`; for `with` there is airunner.sync.Client")

        def __exit__(self, *_: object) -> None: ...

    @property
    def _entered(self) -> Connection:
        if self._open is None:
            raise ClientNotOpen("this client is not open: use it inside of `async with Client() as client:`")
        return self._open

    async def _paged(
        self, request: Asking[_Page], rows: Callable[[_Page], Sequence[_T]], key: Callable[[_T], object]
    ) -> AsyncGenerator[Sequence[_T]]:
        """Yield the rows of each page; the next page begins after the `key` of a page's last row."""
        while True:
            page = await self._ask(request)
            yield rows(page)
            if not page.more:
                return
            request = msgspec.structs.replace(request, after=key(rows(page)[-1]))

    async def _ask(
        self,
        request: Asking[_Reply],
        request_id: RequestId | None = None,
        smaller: Callable[[], Asking[_Reply]] | None = None,
    ) -> _Reply:
        try:
            return await self._entered.channel.ask(request, request_id=request_id, smaller=smaller)
        except (BadRequest, NotFound) as error:
            raise refusal_of(error, request) from error
