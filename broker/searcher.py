"""Searcher: searches parts of logs beside the Ledger, in a thread of its own, and makes the replies to SearchLogs.

The Ledger only reads the stored segments, in a ms or two. To search them takes ten times as long, and nothing of the
store, so no other request waits for it. RE2 and zstd give up the GIL meanwhile. One search runs at a time; waiting
tenants take turns.

```
 Ledger ─LogFound─► Gateway ─► Searcher ─► thread: lifecycle.searching ─LogSearched─► Gateway ─► peer
```
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final

from msgspec.structs import replace

from airunner.broker.inbox import Response
from airunner.broker.lifecycle.commands import LogFound
from airunner.broker.lifecycle.searching import search
from airunner.broker.offload import Offload, Stepper, Steps
from airunner.broker.tenantturns import TenantTurns
from airunner.protocol.coding import refusal
from airunner.protocol.errors import PeerError
from airunner.protocol.replies import Reply
from airunner.transport.heap import keep_freed_memory

SEARCH_S: Final = 0.1  # after which a page ends: some patterns take RE2 a hundred times as long as others
TENANT_WAITING_MAX: Final = 4  # searches of one tenant that wait; a further one is refused with `busy`
WAITING_BYTES_MAX: Final = 67_108_864  # bytes of segments of all waiting searches


def run_here(work: Callable[[], object], then: Callable[[BaseException | None], object]) -> None:
    """Run work at once, in place of a thread: an `Offload` for simulations and brokers of one process."""
    work()
    then(None)


class Searcher:
    """Searcher of logs, in the thread of `offload`; `answer` gets each response, and how many bytes were searched."""

    def __init__(self, offload: Offload, answer: Callable[[Response, int], None]) -> None:
        self._waiting = TenantTurns[tuple[Response, LogFound]](TENANT_WAITING_MAX, WAITING_BYTES_MAX)
        self._answer = answer
        self._steps = Stepper(self._searches(), offload)

    async def run(self) -> None:
        """Search until cancelled."""
        await self._steps.run()

    def search(self, response: Response, found: LogFound) -> None:
        """Search a part of a log, and send the response with the reply. Raises `Busy`: too many searches wait."""
        self._waiting.put(response.command.tenant, (response, found), found.stored_bytes)
        keep_freed_memory()
        self._steps.go_on()

    def _searches(self) -> Steps[None]:
        while True:
            while self._waiting:
                response, found = self._waiting.take()
                ended: list[tuple[Reply, int]] = []
                yield partial(_search, found, ended)
                ((reply, size_bytes),) = ended
                self._answer(replace(response, reply=reply), size_bytes)
            yield None


def _search(found: LogFound, ended: list[tuple[Reply, int]]) -> None:
    try:
        until_s = monotonic() + SEARCH_S
        ended.append(search(found, lambda: monotonic() >= until_s))
    except PeerError as error:
        ended.append((refusal(error), 0))
