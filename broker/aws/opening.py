"""Opening of the lines to SQS and EventBridge that the URL of a store names, with a check that each exists.

CloudFormation (deploy/aws) makes queues and bus. A broker makes none: its role need not be allowed to.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple

from airunner.broker.aws.ports import WAIT_S, EventBus, Queue
from airunner.broker.aws.services import EventBridgeBus, SqsQueue
from airunner.broker.offload import Offload
from airunner.broker.store.awserrors import aws_errors, aws_words, open_client
from airunner.broker.store.awsurl import AwsUrl
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError
from airunner.transport.workthread import WorkThread

RETRIES: Final = 2  # of botocore, when a queue or bus is looked up
CONNECTIONS: Final = 4  # to SQS: three lines, and one to look queues up


def unsaid(_line: str) -> None:
    """Say nothing: nobody reads the lines of this broker."""


class Bells(NamedTuple):
    """Lines to the queue of bells: one waits for messages, and the other sends."""

    outgoing: Queue
    incoming: Queue


class Events(NamedTuple):
    """Line to the event bus; `read` runs what the outbox asks of the engine."""

    bus: EventBus
    read: Offload


class Lines(NamedTuple):
    """Lines of a broker to AWS, beside its table; None: it has none of this kind.

    `submitters`: tenants for whom schedules may submit jobs; `say` gets lines for the operator.
    """

    bells: Bells | None = None
    submissions: Queue | None = None
    submitters: frozenset[str] = frozenset()
    events: Events | None = None
    say: Callable[[str], None] = unsaid


NO_LINES: Final = Lines()
"""Lines of a broker whose store is not on AWS."""


@contextmanager
def open_lines(url: AwsUrl, say: Callable[[str], None]) -> Generator[Lines]:
    """Open lines, and close them at the end; `say` gets a line about what is missing. Raises `OperatorError`.

    A thread that waits for messages then is left behind: it ends with the process.
    """
    with ExitStack() as ends:

        def thread() -> Offload:
            opened = WorkThread()
            ends.callback(opened.close, within_s=0.0)
            return opened

        bells = submissions = events = None
        if url.bells:
            sqs = open_client(url, "sqs", connections=CONNECTIONS, retries=RETRIES, wait_s=WAIT_S)
            place = _queue(sqs, url.bells, "write sqs=none")
            bells = Bells(*(SqsQueue(sqs, url.bells, place, thread()) for _ in range(2)))
            if url.submissions:
                place = _queue(sqs, url.submissions, "write submissions=none")
                submissions = SqsQueue(sqs, url.submissions, place, thread())
        else:
            say("sqs=none: brokers hear one another without bells, and no schedule submits jobs")
        if url.bus:
            client = open_client(url, "events", connections=1, retries=RETRIES)
            _require(f"event bus {url.bus}", "leave out bus=", client.describe_event_bus, Name=url.bus)
            events = Events(EventBridgeBus(client, url.bus, thread()), thread())
        yield Lines(bells, submissions, url.submitters, events, say)


def _queue(sqs: Any, name: str, instead: str) -> str:  # noqa: ANN401 - boto3 has no types
    """Look up the URL of a queue. Raises `OperatorError`, which says what to do `instead`."""
    found = _require(f"queue {name}", instead, sqs.get_queue_url, QueueName=name)
    if "QueueUrl" not in found:  # a proxy has answered, for example
        raise OperatorError(f"cannot use the queue {name}: what came is no answer of SQS", exit_code=EXIT_UNAVAILABLE)
    return str(found["QueueUrl"])


def _require(what: str, instead: str, method: Callable[..., Any], **parameters: str) -> Any:  # noqa: ANN401 - likewise
    try:
        return method(**parameters)
    except aws_errors() as error:
        words = f"cannot use the {what}: {aws_words(error)}, or {instead} in --store"
        raise OperatorError(words, exit_code=EXIT_UNAVAILABLE) from error
