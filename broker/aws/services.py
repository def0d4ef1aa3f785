"""Services of AWS behind the ports: queues of SQS and a bus of EventBridge, with boto3.

boto3 is synchronous, so each call is offloaded: `offload` runs one at a time, and a line that waits for messages has
one of its own. Nothing is repeated here, and nothing is thrown away: the actors know what a lost call means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import anyio

from airunner.broker.aws.ports import BATCH_MAX, WAIT_S, AwsFault, Entry, Message, Received, Verdict
from airunner.broker.offload import Offload
from airunner.broker.store.awserrors import aws_errors, aws_words

SOURCE: Final = "airunner"  # of the entries; operators' rules match it
_T = TypeVar("_T")


async def offloaded(offload: Offload, work: Callable[[], _T]) -> _T:
    """Offload `work` and wait for what it returns. Raises what it raises.

    If the task is cancelled meanwhile the work goes on, and the same `offload` may not be used again.
    """
    ended = anyio.Event()
    returned: list[_T] = []
    raised: list[BaseException] = []

    def then(failed: BaseException | None) -> None:
        if failed is not None:
            raised.append(failed)
        ended.set()

    offload(lambda: returned.append(work()), then)
    await ended.wait()
    if raised:
        raise raised[0]
    return returned[0]


class Line:
    """Line to a service: runs its calls with `offload`, and translates AWS's errors."""

    def __init__(self, offload: Offload) -> None:
        self._offload = offload

    async def call(self, method: Callable[..., _T], **parameters: object) -> _T:
        """Call a method of a client. Raises `AwsFault`."""
        try:
            return await offloaded(self._offload, lambda: method(**parameters))
        except aws_errors() as error:
            raise AwsFault(aws_words(error)) from error


class SqsQueue:
    """Queue of SQS at a URL; see `ports.Queue`. `client` is boto3's."""

    def __init__(self, client: Any, name: str, url: str, offload: Offload) -> None:  # noqa: ANN401 - boto3 has no types
        self._client = client
        self._url = url
        self._line = Line(offload)
        self.name = name

    async def send(self, messages: Sequence[Message]) -> int:
        """See `ports.Queue`."""
        entries = [
            {"Id": str(at), "MessageBody": message.body, "DelaySeconds": message.delay_s}
            for at, message in enumerate(messages)
        ]
        answer = await self._line.call(self._client.send_message_batch, QueueUrl=self._url, Entries=entries)
        return len(messages) - len(answer.get("Successful", ()))

    async def receive(self) -> list[Received]:
        """See `ports.Queue`."""
        answer = await self._line.call(
            self._client.receive_message,
            QueueUrl=self._url,
            MaxNumberOfMessages=BATCH_MAX,
            WaitTimeSeconds=int(WAIT_S),
        )
        return [
            Received(message["MessageId"], message["ReceiptHandle"], message["Body"])
            for message in answer.get("Messages", ())
        ]

    async def delete(self, receipts: Sequence[str]) -> None:
        """See `ports.Queue`."""
        entries = [{"Id": str(at), "ReceiptHandle": receipt} for at, receipt in enumerate(receipts)]
        await self._line.call(self._client.delete_message_batch, QueueUrl=self._url, Entries=entries)


class EventBridgeBus:
    """Event bus of EventBridge by its name or ARN; see `ports.EventBus`. `client` is boto3's."""

    def __init__(self, client: Any, name: str, offload: Offload) -> None:  # noqa: ANN401 - boto3 has no types
        self._client = client
        self._name = name
        self._line = Line(offload)

    async def put(self, entries: Sequence[Entry]) -> list[Verdict]:
        """See `ports.EventBus`."""
        answer = await self._line.call(
            self._client.put_events,
            Entries=[
                {
                    "EventBusName": self._name,
                    "Source": SOURCE,
                    "DetailType": entry.kind,
                    "Time": entry.timestamp_ms / 1_000,
                    "Detail": entry.detail,
                }
                for entry in entries
            ],
        )
        results = answer.get("Entries", ())
        if len(results) != len(entries):  # a proxy has answered, for example
            raise AwsFault("InvalidAnswer: what came is no answer of EventBridge")
        return [Verdict(result.get("ErrorCode", ""), result.get("ErrorMessage", "")) for result in results]
