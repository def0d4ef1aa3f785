"""Blocking client: `airunner.Client` without `async` and `await`.

```python
from airunner.sync import Client

with Client() as client:
    job = client.submit(command="echo", args=["hello"])
    for line in client.logs(job, follow=True):
        print(line.text)
```

An event loop in a thread of its own runs the asynchronous client, and each method waits for that of the same name, so
there is one implementation and one signature of each. Any number of threads may share a client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import Concatenate, Final, Generic, ParamSpec, Self, TypeVar, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal

from airunner.client import batches
from airunner.client.client import Client as AsyncClient
from airunner.client.reach import Reach
from airunner.client.session import PATIENCE
from airunner.protocol.errors import ClientNotOpen, OperatorError
from airunner.transport.patience import Patience

__all__ = ["BatchIterator", "Client"]

CLOSED: Final = "this client was closed by another thread meanwhile"
_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Loop:
    """Event loop in a thread of its own, in which an asynchronous client is open."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self._portal: BlockingPortal | None = None
        self._opened = ExitStack()
        self.closing = False  # a thread that still waits is not to take that for the end of what it reads

    def open(self) -> None:
        """Start the thread, and open the client in it."""
        if self._portal is not None:
            raise OperatorError("this client is open already; make another one for another block")
        with ExitStack() as opened:
            portal = opened.enter_context(start_blocking_portal(name="airunner client"))
            opened.callback(portal.call, portal.stop, True)  # noqa: FBT003 - calls of other threads end
            opened.enter_context(portal.wrap_async_context_manager(self.client))
            self._opened = opened.pop_all()
        self._portal, self.closing = portal, False

    def close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Close the client, and end the thread."""
        self._require_open()
        self.closing = True
        try:
            return self._opened.__exit__(kind, error, trace)
        finally:
            self._portal = None

    def call(self, function: Callable[..., Awaitable[_T]], *args: object, **keywords: object) -> _T:
        """Call a coroutine function in the event loop, and wait for its result; an interrupt cancels it.

        An iterator among the arguments is read first, in the caller's thread.
        """
        called = partial(function, *map(_read, args), **{name: _read(value) for name, value in keywords.items()})
        running = self._require_open().start_task_soon(called)
        try:
            return running.result()
        except CancelledError as error:
            raise ClientNotOpen(CLOSED) from error
        except BaseException:
            running.cancel()
            raise

    def call_soon(self, function: Callable[[], Awaitable[None]]) -> None:
        """Call a coroutine function in the event loop, without waiting; not at all if the client is not open."""
        if self._portal is not None:
            with suppress(RuntimeError):  # it is being closed
                self._portal.start_task_soon(function)

    def _require_open(self) -> BlockingPortal:
        if self._portal is None:
            raise ClientNotOpen("this client is not open: use it inside of `with Client() as client:`")
        return self._portal


def _read(argument: object) -> object:
    return tuple(cast("Iterator[object]", argument)) if isinstance(argument, Iterator) else argument


class BatchIterator(Generic[_T]):
    """Iterator of items that come in batches; `next_batch` takes a batch at once.

    A caller that leaves the loop early may use `with`, or call `close`, which stops the iteration at once.
    """

    def __init__(self, loop: _Loop, items: batches.BatchIterator[_T]) -> None:
        self._loop = loop
        self._items = items
        self._ready: list[_T] = []  # items to return, in reverse order

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        if not self._ready:
            self._ready = self.next_batch()[::-1]
        if not self._ready:
            raise StopIteration
        return self._ready.pop()

    def next_batch(self) -> list[_T]:
        """Wait for the next item, and return it with those that have come with it; none: the iteration has ended."""
        if self._ready:
            ready, self._ready = self._ready[::-1], []
            return ready
        batch = self._loop.call(self._items.next_batch)
        if not batch and self._loop.closing:
            raise ClientNotOpen(CLOSED)
        return batch

    def close(self) -> None:
        """Stop the iteration."""
        self._ready = []
        with suppress(ClientNotOpen):  # that has stopped it
            self._loop.call(self._items.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._loop.call_soon(self._items.aclose)  # in the thread of the event loop


def _plain(doc: str | None) -> str:
    """Turn the examples of an asynchronous method into those of a blocking one."""
    return (doc or "").replace("await ", "").replace("async for", "for").replace("async with", "with")


class _Delegating:
    """Base of the client, whose methods it makes: each calls that of the asynchronous client."""

    def __init__(self, client: AsyncClient) -> None:
        self._loop = _Loop(client)

    @staticmethod
    def blocking(
        method: Callable[Concatenate[AsyncClient, _P], Awaitable[_T]],
    ) -> Callable[Concatenate[_Delegating, _P], _T]:
        """Make a blocking method."""

        @wraps(method)
        def call(self: _Delegating, /, *args: _P.args, **keywords: _P.kwargs) -> _T:
            return self._loop.call(method, self._loop.client, *args, **keywords)

        call.__doc__ = _plain(method.__doc__)
        return call

    @staticmethod
    def iterating(
        method: Callable[Concatenate[AsyncClient, _P], batches.BatchIterator[_T]],
    ) -> Callable[Concatenate[_Delegating, _P], BatchIterator[_T]]:
        """Make a method that returns an iterator."""

        async def begin(client: AsyncClient, *args: _P.args, **keywords: _P.kwargs) -> batches.BatchIterator[_T]:
            return method(client, *args, **keywords)

        @wraps(method)
        def call(self: _Delegating, /, *args: _P.args, **keywords: _P.kwargs) -> BatchIterator[_T]:
            return BatchIterator(self._loop, self._loop.call(begin, self._loop.client, *args, **keywords))

        call.__doc__ = _plain(method.__doc__)
        return call


_blocking, _iterating = _Delegating.blocking, _Delegating.iterating


class Client(_Delegating):
    """Blocking client, with the arguments and methods of `airunner.Client`."""

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
        super().__init__(
            AsyncClient(broker, token=token, home=home, patience=patience, reach=reach, token_file=token_file)
        )

    def __enter__(self) -> Self:
        """Open the client; it connects with the first request. Raises the errors of `reach`."""
        self._loop.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Close the client; every iterator ends."""
        return self._loop.close(kind, error, trace)

    submit = _blocking(AsyncClient.submit)
    submit_many = _blocking(AsyncClient.submit_many)
    map = _iterating(AsyncClient.map)
    wait = _blocking(AsyncClient.wait)
    wait_many = _blocking(AsyncClient.wait_many)
    as_completed = _iterating(AsyncClient.as_completed)
    cancel = _blocking(AsyncClient.cancel)
    retry = _blocking(AsyncClient.retry)
    resize = _blocking(AsyncClient.resize)
    get = _blocking(AsyncClient.get)
    list = _iterating(AsyncClient.list)
    list_page = _blocking(AsyncClient.list_page)
    follow = _iterating(AsyncClient.follow)
    replay = _iterating(AsyncClient.replay)
    check_log = _blocking(AsyncClient.check_log)
    logs = _iterating(AsyncClient.logs)
    search = _iterating(AsyncClient.search)
    artifacts = _blocking(AsyncClient.artifacts)
    fetch = _blocking(AsyncClient.fetch)
    upload = _blocking(AsyncClient.upload)
    read_artifact = _iterating(AsyncClient.read_artifact)
    search_page = _blocking(AsyncClient.search_page)
    update_queue = _blocking(AsyncClient.update_queue)
    set_secret = _blocking(AsyncClient.set_secret)
    remove_secret = _blocking(AsyncClient.remove_secret)
    secrets = _iterating(AsyncClient.secrets)
    caches = _iterating(AsyncClient.caches)
    remove_caches = _blocking(AsyncClient.remove_caches)
    queues = _iterating(AsyncClient.queues)
    queue = _blocking(AsyncClient.queue)
    agents = _iterating(AsyncClient.agents)
    brokers = _blocking(AsyncClient.brokers)
