"""The low-level DynamoDB client of boto3, as far as an engine uses it; the way to the fake server is handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tests.simulation.dynamodb.server import Answer, Server
from tests.simulation.dynamodb.table import Table


class Carry(Protocol):
    """Way of a request to the server and of its answer back; `act` does it there.

    Raises what the server raises, and whatever may happen on the way.
    """

    def __call__(self, operation: str, request: Mapping[str, Any], act: Callable[[], Answer]) -> Answer: ...


def at_once(operation: str, request: Mapping[str, Any], act: Callable[[], Answer]) -> Answer:
    """A way on which nothing happens."""
    del operation, request
    return act()


class Client:
    """Methods of the client that boto3 makes for "dynamodb"."""

    def __init__(self, server: Server, carry: Carry = at_once) -> None:
        self.server = server
        self._carry = carry

    def _call(self, operation: str, request: dict[str, Any]) -> Answer:
        return self._carry(operation, request, lambda: self.server.do(operation, request))

    def get_item(self, **request: Any) -> Answer:
        return self._call("get_item", request)

    def batch_get_item(self, **request: Any) -> Answer:
        return self._call("batch_get_item", request)

    def query(self, **request: Any) -> Answer:
        return self._call("query", request)

    def put_item(self, **request: Any) -> Answer:
        return self._call("put_item", request)

    def update_item(self, **request: Any) -> Answer:
        return self._call("update_item", request)

    def delete_item(self, **request: Any) -> Answer:
        return self._call("delete_item", request)

    def transact_write_items(self, **request: Any) -> Answer:
        return self._call("transact_write_items", request)

    def describe_table(self, **request: Any) -> Answer:
        return self._call("describe_table", request)

    def close(self) -> None:
        """Nothing is open."""


def fake_client(table: str = "airunner") -> Client:
    """A client of a server with one empty table, whose indexes are never late."""
    return Client(Server({table: Table()}))
