"""Table on DynamoDB: its calls, with their retries, and what each error means to a broker.

| what has happened | what is done |
|---|---|
| a condition does not hold | `Moved`, or False: decided again |
| another transaction is at an item, or the table is throttled | again after a random pause, which grows |
| server error, connection lost, no answer in time | the same: a transaction has a token, and is done once |
| `TRIES_MAX` or `CALL_S` of these; a condition that fails after one | `StoreUnsure`; `StoreAway`: it is not done |
| missing right, table, index | at the opening `OperatorError` with AWS's code; later `StoreAway` |
| a wrong call, such as an item that is too large | `OperatorError` |
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random, SystemRandom
from typing import Any, Final, Protocol, TypeVar

from airunner.broker.store.awserrors import THROTTLED, aws_errors, aws_words, code_of, is_transient
from airunner.broker.store.contract import Moved, StoreAway, StoreUnsure
from airunner.broker.store.dynamodb.items import Item, JobItem, read_job, size_of
from airunner.broker.store.dynamodb.schema import JOB, Key, job_of_pk
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError

T = TypeVar("T")
Value = dict[str, Any]
Values = Mapping[str, Value]

TRIES_MAX: Final = 8  # of a call, with pauses of some 3 s in all
CALL_S: Final = 6.0  # after which a call is not tried again: a broker is taken for dead after 10 s
PAUSE_FIRST_S: Final = 0.025
PAUSE_LAST_S: Final = 1.0
ROWS_MAX: Final = 100  # items in a transaction
BYTES_MAX: Final = 4_000_000  # of these items; DynamoDB takes 4 MB
KEYS_MAX: Final = 100  # in one BatchGetItem
CALLS_MAX: Final = 8  # calls at a time
FAILED: Final = "ConditionalCheckFailed"
CANCELLED: Final = "TransactionCanceledException"
AGAIN: Final = frozenset(
    {"None", "TransactionConflict", "TransactionInProgress", "ThrottlingError", "ProvisionedThroughputExceeded"}
)
"""Reasons, of a transaction or of one of its writes, after which the same may be tried again."""
OWN_FAULTS: Final = frozenset({"ValidationException", "IdempotentParameterMismatchException", CANCELLED})
"""Codes that say that a call is wrong, and so will be for ever."""
UNITS: Final = "ConsumedCapacity"  # what every answer to a write has, since it is asked for
NOTHING_SENT: Final = frozenset({"EndpointConnectionError", "ConnectTimeoutError"})


class Client(Protocol):
    """Client of DynamoDB, as boto3 makes it: the methods that are used here."""

    def batch_get_item(self, **asked: object) -> dict[str, Any]: ...
    def delete_item(self, **asked: object) -> dict[str, Any]: ...
    def describe_table(self, **asked: object) -> dict[str, Any]: ...
    def get_item(self, **asked: object) -> dict[str, Any]: ...
    def put_item(self, **asked: object) -> dict[str, Any]: ...
    def query(self, **asked: object) -> dict[str, Any]: ...
    def transact_write_items(self, **asked: object) -> dict[str, Any]: ...
    def update_item(self, **asked: object) -> dict[str, Any]: ...


class Edges:
    """Edges of the engine: pauses, randomness, a steady clock, and how several calls are made at a time."""

    def __init__(self) -> None:
        self.random: Random = SystemRandom()
        self._pool = ThreadPoolExecutor(CALLS_MAX, thread_name_prefix="dynamodb")
        self._inside = threading.local()

    def pause(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def steady_s(self) -> float:
        """Return the time of a clock that is never set."""
        return time.monotonic()

    def run_all(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Make calls side by side, and return their results in order; raises the first error."""
        if len(calls) <= 1 or getattr(self._inside, "pool", False):  # a thread that waits for others would block them
            return [call() for call in calls]

        def inside(call: Callable[[], T]) -> T:
            self._inside.pool = True
            return call()

        return list(self._pool.map(inside, calls))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


class Table:
    """Table with a name, over a client. `units`: write units that its calls have taken, as DynamoDB says."""

    def __init__(self, client: Client, name: str, edges: Edges) -> None:
        self.name = name
        self.edges = edges
        self.rows = 0  # items read or written
        self.units = 0.0
        self.damage_met = 0  # jobs that could not be read, each time
        self.aside: set[str] = set()  # ids of jobs that are out of use
        self.is_open = False  # from then on a call that is not allowed is an outage: rights and credentials change
        self._client = client

    # --- reads ---

    def get(self, keys: Iterable[Key]) -> dict[Key, Item]:
        """Read items by their keys, as they are now; those that do not exist are missing."""
        wanted = list(dict.fromkeys(keys))
        chunks = [wanted[at : at + KEYS_MAX] for at in range(0, len(wanted), KEYS_MAX)]
        found: dict[Key, Item] = {}
        for some in self.edges.run_all([partial(self._get, chunk) for chunk in chunks]) if chunks else ():
            found |= some
        self.rows += len(found)
        return found

    def _get(self, keys: Sequence[Key]) -> dict[Key, Item]:
        found: dict[Key, Item] = {}
        left = [{"pk": {"S": pk}, "sk": {"S": sk}} for pk, sk in keys]
        pauses = self._pauses()
        while left:
            asked = {self.name: {"Keys": left, "ConsistentRead": True}}
            answer = self._call(partial(self._client.batch_get_item, RequestItems=asked), "Responses")
            for item in answer["Responses"].get(self.name, []):
                found[item["pk"]["S"], item["sk"]["S"]] = item
            before, left = len(left), answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
            if len(left) == before and not next(pauses, None):
                raise StoreAway(f"{self.shown}: throttled (ProvisionedThroughputExceededException)")
        return found

    def query(
        self,
        condition: str,
        values: Values,
        *,
        index: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        projection: str | None = None,
    ) -> Iterator[Item]:
        """Read items in order, page by page: of the table as they are now, of an index as they were a little ago."""
        asked: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": values,
            "ScanIndexForward": not descending,
        }
        asked |= {"ConsistentRead": True} if index is None else {"IndexName": index}
        if limit is not None:
            asked["Limit"] = limit
        if projection is not None:
            asked["ProjectionExpression"] = projection
        left = limit
        while True:
            answer = self._call(partial(self._client.query, **asked), "Items")
            items = answer["Items"]
            self.rows += len(items)
            yield from items
            if left is not None:
                left -= len(items)
            if (last := answer.get("LastEvaluatedKey")) is None or (left is not None and left <= 0):
                return
            asked["ExclusiveStartKey"] = last

    def count(self, condition: str, values: Values, *, index: str, limit: int) -> int:
        """Count items of an index, up to a limit."""
        asked: dict[str, Any] = {
            "TableName": self.name,
            "IndexName": index,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": values,
            "Select": "COUNT",
        }
        counted = 0
        while counted < limit:
            asked["Limit"] = limit - counted
            answer = self._call(partial(self._client.query, **asked), "Count")
            counted += answer["Count"]
            if (last := answer.get("LastEvaluatedKey")) is None:
                break
            asked["ExclusiveStartKey"] = last
        self.rows += 1
        return counted

    def read_jobs(self, items: Mapping[Key, Item]) -> list[JobItem]:
        """Read the jobs among items, in their order; one that cannot be read is set aside, and left out."""
        jobs: list[JobItem] = []
        for (pk, sk), item in items.items():
            if sk != JOB:
                continue
            try:
                jobs.append(read_job(item))
            except (*UNDECODABLE, LookupError, TypeError, ValueError):
                self.set_aside(job_of_pk(pk)[1])
        return jobs

    def set_aside(self, job_id: str) -> None:
        """Set a job aside: it is out of use, and nothing else is."""
        self.damage_met += 1
        self.aside.add(job_id)

    # --- writes of one item ---

    def put(self, item: Item, condition: str | None = None, values: Values | None = None) -> bool:
        """Write an item; False: the condition does not hold, or it is not known whether it is written.

        Raises `StoreAway`; without a condition also if it is not known.
        """
        return self._write(partial(self._client.put_item, Item=item), condition, values)

    def update(self, key: Key, update: str, condition: str, values: Values) -> bool:
        """Change an item; False: the condition does not hold, or it is not known whether it is changed."""
        return self._write(partial(self._client.update_item, Key=_key(key), UpdateExpression=update), condition, values)

    def delete(self, key: Key, condition: str | None = None, values: Values | None = None) -> bool:
        """Delete an item; see `put`."""
        return self._write(partial(self._client.delete_item, Key=_key(key)), condition, values)

    def _write(self, call: Callable[..., dict[str, Any]], condition: str | None, values: Values | None) -> bool:
        asked: dict[str, Any] = {"TableName": self.name, "ReturnConsumedCapacity": "INDEXES"}
        if condition is not None:
            asked["ConditionExpression"] = condition
        if values:
            asked["ExpressionAttributeValues"] = values
        self.rows += 1
        try:
            answer = self._call(partial(call, **asked), UNITS)
        except Moved:
            return False
        except StoreUnsure as unsure:
            if condition is None:  # nobody could find out; done twice it is the same
                raise StoreAway(str(unsure)) from unsure
            return False
        self._add_units([answer.get("ConsumedCapacity", {})])
        return True

    # --- transactions ---

    def transact(self, actions: Sequence[dict[str, Any]], token: str) -> None:
        """Do all of these writes or none, once, however often the call has to be repeated. Raises `Moved`."""
        require_fits(actions)
        self.rows += len(actions)
        call = partial(
            self._client.transact_write_items,
            TransactItems=list(actions),
            ClientRequestToken=token,
            ReturnConsumedCapacity="INDEXES",
        )
        answer = self._call(call, UNITS)
        self._add_units(answer.get("ConsumedCapacity", []))

    def put_action(self, item: Item, condition: str, values: Values | None = None) -> dict[str, Any]:
        """Make the write of an item in a transaction."""
        return {"Put": {"Item": item, **self._conditioned(condition, values)}}

    def delete_action(self, key: Key, condition: str, values: Values | None = None) -> dict[str, Any]:
        """Make the deletion of an item in a transaction."""
        return {"Delete": {"Key": _key(key), **self._conditioned(condition, values)}}

    def update_action(
        self, key: Key, update: str, condition: str, values: Values, names: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Make the change of an item in a transaction."""
        asked = {"Key": _key(key), "UpdateExpression": update, **self._conditioned(condition, values)}
        return {"Update": {**asked, "ExpressionAttributeNames": names} if names else asked}

    def _conditioned(self, condition: str, values: Values | None) -> dict[str, Any]:
        asked: dict[str, Any] = {"TableName": self.name, "ConditionExpression": condition}
        return {**asked, "ExpressionAttributeValues": values} if values else asked

    def _add_units(self, consumed: Iterable[dict[str, Any]]) -> None:
        for capacity in consumed:
            self.units += capacity.get("CapacityUnits", 0.0)

    # --- calls ---

    @property
    def shown(self) -> str:
        """Words for the table in a message."""
        return f"the store in the DynamoDB table {self.name}"

    def describe(self) -> dict[str, Any]:
        """Describe the table, as DescribeTable answers. Raises `OperatorError`, `StoreAway`."""
        return self._call(partial(self._client.describe_table, TableName=self.name), "Table")

    def _pauses(self) -> Iterator[float]:
        """Pause before each further try, longer each time and by chance."""
        pause_s = PAUSE_FIRST_S
        for _ in range(TRIES_MAX - 1):
            self.edges.pause(pause_s * (0.5 + self.edges.random.random() / 2))
            yield pause_s
            pause_s = min(2 * pause_s, PAUSE_LAST_S)

    def _call(self, call: Callable[[], dict[str, Any]], member: str) -> dict[str, Any]:
        """Make a call; `member` is what its answer has, if it is one of DynamoDB's and not, say, of a proxy."""
        pauses = self._pauses()
        unsure = False
        until_s = self.edges.steady_s() + CALL_S
        while True:
            try:
                answer = call()
            except aws_errors() as error:
                words = self._judged(error, unsure=unsure)
                unsure |= member == UNITS and may_be_done(error)
            else:
                if member in answer:
                    return answer
                words = f"an answer without {member}, which is not one of DynamoDB"
                unsure |= member == UNITS
            if self.edges.steady_s() >= until_s or next(pauses, None) is None:
                raise (StoreUnsure if unsure else StoreAway)(f"{self.shown}: {words}")

    def _judged(self, error: Exception, *, unsure: bool) -> str:
        """Return words for an error after which the call may be made again; raise what others mean.

        unsure: whether a try before, which was not answered, may have done it
        """
        words, reasons = aws_words(error), reasons_of(error)
        if FAILED in reasons:
            if unsure:  # its token may be forgotten
                raise StoreUnsure(f"{self.shown}: {words}, after a try without an answer") from error
            raise Moved from error
        if is_transient(error) or (reasons and reasons <= AGAIN):
            return words
        if self.is_open and code_of(error) not in OWN_FAULTS:
            raise (StoreUnsure if unsure else StoreAway)(f"{self.shown}: {words}") from error
        raise OperatorError(f"cannot use {self.shown}: {words}", exit_code=EXIT_UNAVAILABLE) from error


def reasons_of(error: Exception) -> set[str]:
    """Return why a write was not done, of a transaction for each of its writes; empty: for another reason."""
    code = code_of(error)
    if code == CANCELLED:
        answer: Any = error
        return {reason["Code"] for reason in answer.response.get("CancellationReasons", ())}
    return {code.removesuffix("Exception")} & {FAILED, *AGAIN}


def may_be_done(error: Exception) -> bool:
    """Tell whether a write may have been done though it was answered by an error, or not at all."""
    code = code_of(error)
    return is_transient(error) and code not in NOTHING_SENT and code not in THROTTLED


def new_token(edges: Edges) -> str:
    """Draw the token of a transaction: all tables of an account share one space of them."""
    return edges.random.randbytes(16).hex()


def require_fits(actions: Sequence[dict[str, Any]]) -> None:
    """Require that a transaction keeps DynamoDB's bounds; a batch that does not is an error of this program."""
    assert len(actions) <= ROWS_MAX, f"{len(actions)} items in a transaction"
    keys = {_key_of(action) for action in actions}
    assert len(keys) == len(actions), "an item twice in a transaction"
    size = sum(size_of(action["Put"]["Item"]) for action in actions if "Put" in action)
    assert size <= BYTES_MAX, f"{size} bytes in a transaction"


def _key_of(action: dict[str, Any]) -> Key:
    ((_, asked),) = action.items()
    item = asked.get("Item") or asked["Key"]
    return item["pk"]["S"], item["sk"]["S"]


def _key(key: Key) -> Item:
    return {"pk": {"S": key[0]}, "sk": {"S": key[1]}}
