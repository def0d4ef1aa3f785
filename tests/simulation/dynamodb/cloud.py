"""A simulated DynamoDB of several brokers: what happens to a call on its way, on virtual time.

```
 broker's thread ── call ──► on its way ──► done at once, all or nothing ──► on its way back ──► answered
                              │ not sent      │ refused: conflict, throttled,   │ lost: connection closed,
                              │ late          │ server error (done or not)      │ no answer in time
```

What has arrived is done, whatever has become of who sent it, and also if it arrives when nobody waits any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, Final

import anyio
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from airunner.transport.bell import Bell
from tests.simulation.baton import Baton
from tests.simulation.cluster import STORE
from tests.simulation.dynamodb.client import Client
from tests.simulation.dynamodb.errors import cancelled, client_error
from tests.simulation.dynamodb.server import Answer, Server
from tests.simulation.dynamodb.table import FED_LATE_S, Table
from tests.simulation.machine import Machine, true_s
from tests.simulation.network import SimNetwork

NAME: Final = "airunner"
TRIP_S: Final = 0.002  # at the most, one way, on a good day
CONNECT_S: Final = 5.0  # as `awserrors` says
READ_S: Final = 10.0  # likewise
LATE_S: Final = 10.0  # at the most, a call arrives after its sender has given it up
WRITES: Final = ("put_item", "update_item", "delete_item", "transact_write_items")
GOOD_DAY: Final[Mapping[str, float]] = {"conflict": 0.01, "short": 0.02, "unprocessed": 0.01}
FAULTS: Final = ("unsent", "lost", "late", "none")  # of a call on its way
AT_ONCE_SHARE: Final = 0.4  # of the calls to which nothing happens take no time at all
URL: Final = "https://dynamodb"


class Cloud:
    """The table, and what is wrong with the ways to it just now.

    `trouble`: how likely each fault is. `slow`: by broker, how long a call may take, one way. `cuts`: by broker,
    whether its next transaction is done before its connection is cut.
    """

    def __init__(self, network: SimNetwork) -> None:
        self.network = network
        self.random = network.random
        self.rare = network.recorder.rare
        self.trouble: dict[str, float] = dict(GOOD_DAY)
        self.slow: dict[str, float] = {}
        self.cuts: dict[str, bool] = {}
        self.down = False
        late_s = self.random.choice([0.1, 1.0, FED_LATE_S, FED_LATE_S])
        self.table = Table(true_s, lambda: self.random.random() * late_s)
        self.server = Server({NAME: self.table}, true_s)
        self.broker = ""  # whose call is being done
        self._on_their_way: list[str] = []  # tokens of transactions

    def client(self, machine: Machine, thread: Baton) -> Client:
        """The client of one life of a broker; called in its thread."""

        def carry(operation: str, request: Mapping[str, Any], act: Callable[[], Answer]) -> Answer:
            del act
            if self._is_harmless(machine, operation):
                if self.random.random() < AT_ONCE_SHARE:
                    return self._served(machine.name, operation, dict(request))
                return thread.wait(partial(self._call_well, machine, operation, dict(request)))
            return thread.wait(partial(self._call, machine, operation, deepcopy(dict(request))))

        return Client(self.server, carry)

    def heal(self) -> None:
        """Everything works; indexes stay late, and transactions meet."""
        self.trouble = dict(GOOD_DAY)
        self.slow.clear()
        self.cuts.clear()
        self.down = False

    # --- a call ---

    def _is_harmless(self, machine: Machine, operation: str) -> bool:
        """Whether nothing happens to a call on its way."""
        if operation == "transact_write_items" and machine.name in self.cuts:
            return False
        parted = {(machine.name, STORE), (STORE, machine.name)} & self.network.parted
        return not (parted or any(self._draws(fault) for fault in ("unsent", "lost", "late")))

    async def _call_well(self, machine: Machine, operation: str, request: dict[str, Any]) -> Answer:
        """Make a call to which nothing happens on its way, unless its machine does."""
        await anyio.sleep(self._trip_s(machine))  # virtual
        try:
            return self._served(machine.name, operation, request)
        finally:
            await anyio.sleep(self._trip_s(machine))  # virtual

    async def _call(self, machine: Machine, operation: str, request: dict[str, Any]) -> Answer:
        """Send a call to which something happens, and wait for its answer. Raises what botocore raises."""
        there, back = (machine.name, STORE), (STORE, machine.name)
        cut = self.cuts.pop(machine.name, None) if operation == "transact_write_items" else None
        other = 1.0 if cut is not None or {there, back} & self.network.parted else 1e-9
        (fault,) = self.random.choices(FAULTS, [*(self.trouble.get(fault, 0.0) for fault in FAULTS[:-1]), other])
        if cut is False or (cut is None and fault == "unsent"):
            await anyio.sleep(self._trip_s(machine))  # virtual
            raise EndpointConnectionError(endpoint_url=URL)
        if there in self.network.parted and self.random.random() < 0.5:
            await anyio.sleep(CONNECT_S)  # virtual
            raise ConnectTimeoutError(endpoint_url=URL)
        answers: list[Answer | Exception] = []
        bell = Bell()

        def heard(answer: Answer | Exception) -> None:
            answers.append(answer)
            bell.ring()

        is_lost = cut is True or fault == "lost"

        def answered(answer: Answer | Exception) -> None:
            if is_lost or back in self.network.parted:
                self.rare["an answer of DynamoDB was lost"] += operation in WRITES and isinstance(answer, dict)
            if is_lost and self.random.random() < 0.7:
                answer = ConnectionClosedError(endpoint_url=URL)
            elif is_lost or back in self.network.parted:
                return
            self.network.later(self._trip_s(machine), partial(heard, answer))

        self._send(machine, operation, request, answered, is_late=fault == "late")
        with anyio.move_on_after(READ_S):
            while not answers:
                await bell.wait()
        if not answers:
            raise ReadTimeoutError(endpoint_url=URL)
        (answer,) = answers
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _send(
        self,
        machine: Machine,
        operation: str,
        request: dict[str, Any],
        answered: Callable[[Answer | Exception], None],
        *,
        is_late: bool,
    ) -> None:
        """Have a call arrive, now, or so late that nobody waits for it."""
        if (machine.name, STORE) in self.network.parted:
            return
        delay_s = self._trip_s(machine)
        if is_late:
            delay_s += self.random.choice([READ_S, 0.0]) + self.random.random() * LATE_S
        if (token := request.get("ClientRequestToken")) is not None:
            self._on_their_way.append(token)
        self.network.later(delay_s, partial(self._arrive, machine.name, operation, request, answered))

    def _trip_s(self, machine: Machine) -> float:
        return self.random.random() * self.slow.get(machine.name, TRIP_S)

    def _draws(self, fault: str) -> bool:
        return self.random.random() < self.trouble.get(fault, 0.0)

    # --- at the service ---

    def _arrive(
        self, broker: str, operation: str, request: dict[str, Any], answered: Callable[[Answer | Exception], None]
    ) -> None:
        if (token := request.get("ClientRequestToken")) is not None:
            self._on_their_way.remove(token)
        try:
            answered(self._served(broker, operation, request))
        except Exception as error:  # noqa: BLE001 - the client gets it
            answered(error)

    def _served(self, broker: str, operation: str, request: dict[str, Any]) -> Answer:
        """Do what a call asks for. Raises what botocore makes of the answer."""
        refused = self._refused(operation, request)
        if refused is not None:
            raise refused
        if operation == "query" and self._draws("short"):  # a page may end anywhere
            shorter = self.random.randrange(1, 4)
            request["Limit"] = min(request.get("Limit", shorter), shorter)
        self.broker = broker
        answer = self.server.do(operation, request)
        if operation == "batch_get_item" and self._draws("unprocessed"):
            self._leave_out(request, answer)
        if self._draws("failed"):  # and has done it
            self.rare["a write was done and answered with a server error"] += operation in WRITES
            raise client_error("InternalServerError", "Internal server error", operation)
        return answer

    def _refused(self, operation: str, request: dict[str, Any]) -> Exception | None:
        """An error of the service that has done nothing."""
        if self.down or self._draws("failed"):
            code = self.random.choice(["InternalServerError", "ServiceUnavailable"])
            return client_error(code, "Internal server error", operation)
        transaction = operation == "transact_write_items"
        if request.get("ClientRequestToken") in self._on_their_way and self.random.random() < 0.3:
            self.rare["a transaction was still in progress"] += 1
            return client_error("TransactionInProgressException", "The transaction is in progress", operation)
        if operation in WRITES and self._draws("conflict"):
            self.rare["a transaction conflicted"] += transaction
            if transaction:
                return self._cancelled(request, "TransactionConflict")
            return client_error("TransactionConflictException", "Transaction is ongoing for the item", operation)
        if self._draws("throttled"):
            self.rare["a call was throttled"] += 1
            if transaction and self.random.random() < 0.5:
                return self._cancelled(
                    request, self.random.choice(["ThrottlingError", "ProvisionedThroughputExceeded"])
                )
            code = self.random.choice(
                ["ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"]
            )
            return client_error(code, "Rate exceeded", operation)
        return None

    def _cancelled(self, request: dict[str, Any], code: str) -> Exception:
        """One or more items of a transaction are to blame."""
        reasons: list[dict[str, Any]] = [{"Code": "None"} for _ in request["TransactItems"]]
        reasons[self.random.randrange(len(reasons))] = {"Code": code, "Message": "Transaction is ongoing for the item"}
        return cancelled(reasons)

    def _leave_out(self, request: dict[str, Any], answer: Answer) -> None:
        """Some of the keys of a read are left for another one."""
        for name, one in request["RequestItems"].items():
            left = [key for key in one["Keys"] if self.random.random() < 0.5]
            if left:
                self.rare["keys of a read were left out"] += 1
                answer["UnprocessedKeys"] = {name: {**one, "Keys": left}}
                found = answer["Responses"].get(name, [])
                answer["Responses"][name] = [item for item in found if {"pk": item["pk"], "sk": item["sk"]} not in left]
