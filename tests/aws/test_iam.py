"""The policy of brokers is exactly what they call: nothing is missing, and nothing is given that no call needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import anyio
import pytest

from airunner.broker.aws.opening import open_lines
from airunner.broker.aws.ports import Entry, Message
from airunner.broker.checking import inspect_store
from airunner.broker.lifecycle.commands import Adopt, Beat
from airunner.broker.store.awsurl import AwsUrl
from airunner.broker.store.batch import Store
from airunner.broker.store.rows import BrokerSeen
from airunner.protocol.replies import QueueMode
from airunner.transport.ports import SYSTEM
from tests.aws.recorder import Recorder, of_any_table, recording, rights_in, rights_of
from tests.aws.serving import Emulators
from tests.aws.stacks import Stack, applied, open_still
from tests.aws.template import Template
from tests.conformance.driving import Driver
from tests.conformance.machine import StoreAndModel

ACTS = 30
DRAWN = 1_000_000
pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(120)]  # thousands of calls


@pytest.fixture
def stack(aws_emulators: Emulators) -> Iterator[Stack]:
    with applied(aws_emulators("ministack")) as stack:
        yield stack


def live(url: str, broker: str) -> None:
    """Open the store as a broker, do a bit of everything, adopt the other brokers' jobs, and end."""
    with closing(open_still(url, broker)) as engine:
        driver = Driver(Store(engine))
        if broker == "first":
            both = StoreAndModel(Store(engine), seed=1)
            both.begin()
            for _ in range(ACTS):
                both.act()
                both.compare_queues()
                both.compare_lists()
        else:
            (beat,) = driver.apply(Beat()).done
            (other,) = [row for row in beat.news.brokers if row.broker != broker]
            driver.apply(Adopt(BrokerSeen(other.broker, other.epoch, other.beat)))
            driver._drawn = DRAWN  # other ids than those of the first
            driver.ended(queue="other")
            driver.set_mode(QueueMode.PAUSED)
            driver.now_ms += 10 * 86_400_000
            driver.sweep(finished_before_ms=driver.now_ms)
            engine.reconnect()
            with engine.reading():
                engine.ready("home", 10, 10)
            engine.published(engine.outbox(100))
            driver.apply(Beat())
            engine.retire()


async def speak(url: AwsUrl) -> None:
    """Send, receive and delete as the actors of a broker do."""
    with open_lines(url, print) as lines:
        assert lines.bells
        assert lines.submissions
        assert lines.events
        await lines.bells.outgoing.send([Message("{}")])
        for queue in (lines.bells.incoming, lines.submissions):
            received = await queue.receive()
            await queue.delete([message.receipt for message in received])
        await lines.events.bus.put([Entry("JOB_FINISHED", 0, "{}")])


def test_the_policy_of_brokers_is_what_they_call_and_no_more(stack: Stack) -> None:
    url = AwsUrl.parse(stack.url)
    recorder = Recorder()
    with recording(recorder):
        inspect_store(stack.url, SYSTEM.wall_ms)
        live(stack.url, "first")
        live(stack.url, "second")
        sqs = stack.aws.client("sqs")
        queue = sqs.get_queue_url(QueueName=url.submissions)["QueueUrl"]
        sqs.send_message(QueueUrl=queue, MessageBody="{}")
        anyio.run(speak, url)
    given = rights_in(Template(Name=stack.name).properties("BrokerPolicy")["PolicyDocument"])
    assert recorder.needed == given


def test_a_call_that_the_policy_does_not_allow_is_found() -> None:
    given = {("dynamodb:PutItem", "dynamodb:table/TABLE")}
    recorder = Recorder(given)
    put, delete = {"Put": {"TableName": "jobs"}}, {"Delete": {"TableName": "jobs"}}
    recorder.note("dynamodb", "TransactWriteItems", {"TransactItems": [put]})
    with pytest.raises(AssertionError, match="does not allow"):
        recorder.note("dynamodb", "TransactWriteItems", {"TransactItems": [put, delete]})
    with pytest.raises(AssertionError, match="no right is known for dynamodb:Scan"):
        recorder.note("dynamodb", "Scan", {"TableName": "jobs"})


@pytest.mark.parametrize(
    ("call", "right"),
    [
        (("dynamodb", "Query", {"TableName": "a", "IndexName": "due"}), ("Query", "dynamodb:table/TABLE/index/due")),
        (("sqs", "SendMessageBatch", {"QueueUrl": "http://q/1/a-b-bells"}), ("SendMessage", "sqs:TABLE-bells")),
        (("sqs", "GetQueueUrl", {"QueueName": "a-submissions"}), ("GetQueueUrl", "sqs:TABLE-submissions")),
        (
            ("events", "PutEvents", {"Entries": [{"EventBusName": "arn:aws:events:r:1:event-bus/a"}]}),
            ("PutEvents", "events:event-bus/TABLE"),
        ),
    ],
)
def test_a_right_is_of_an_action_and_a_resource(
    call: tuple[str, str, dict[str, object]], right: tuple[str, str]
) -> None:
    (found,) = rights_of(*call)
    assert of_any_table(found) == (f"{call[0]}:{right[0]}", right[1])
