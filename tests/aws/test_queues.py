"""A queue of SQS as its line sees it: on MiniStack, and on ElasticMQ, which keeps the limits of SQS strictly."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import anyio
import pytest

from airunner.broker.aws.opening import Bells, open_lines
from airunner.broker.aws.ports import BATCH_MAX, DELAY_S_MAX, Message
from airunner.broker.aws.tickets import READY_MAX, TICKET_BYTES_MAX, Tickets
from airunner.broker.clock import Clock
from airunner.broker.counts import Counts
from airunner.broker.fairqueue import FairQueue
from airunner.broker.health import Health
from airunner.broker.store.awsurl import AwsUrl
from airunner.broker.store.rows import QueueKey
from airunner.transport.ports import SYSTEM
from tests.aws.services import HAVE_ALL
from tests.aws.serving import Account, Emulators
from tests.virtualtime import real_time  # noqa: F401 - a fixture

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(60)]  # the emulators take seconds to start
VISIBILITY_S = 1
NEEDS = "os=\uffff\x00\U0001f600"  # SQS would not take them as they are


@pytest.fixture(params=[*HAVE_ALL, "elasticmq"])
def account(request: pytest.FixtureRequest, aws_emulators: Emulators) -> Account:
    return aws_emulators(request.param)


@pytest.fixture
def url(account: Account) -> Iterator[AwsUrl]:
    """URL of a store with a queue of bells alone."""
    name, sqs = account.name_of_table(), account.client("sqs")
    attributes = {"VisibilityTimeout": str(VISIBILITY_S)}
    queue = sqs.create_queue(QueueName=f"{name}-bells", Attributes=attributes)["QueueUrl"]
    yield AwsUrl.parse(f"{account.store(name)}&submissions=none")
    sqs.delete_queue(QueueUrl=queue)


@pytest.fixture
async def bells(url: AwsUrl, anyio_backend: str) -> Iterator[Bells]:
    """Lines to it."""
    assert anyio_backend == "asyncio"
    with open_lines(url, print) as lines:
        assert lines.bells is not None
        yield lines.bells


async def received(bells: Bells, count: int) -> list[str]:
    """Receive so many messages, and delete them."""
    bodies: list[str] = []
    while len(bodies) < count:
        found = await bells.incoming.receive()
        await bells.incoming.delete([message.receipt for message in found])
        bodies += [message.body for message in found]
    return bodies


async def test_a_message_comes_after_its_delay_and_again_if_it_is_not_deleted(bells: Bells) -> None:
    began_s = anyio.current_time()
    assert await bells.outgoing.send([Message("late", 2), Message("early")]) == 0
    (early,) = await bells.incoming.receive()
    assert early.body == "early"
    assert sorted(await received(bells, 2)) == ["early", "late"]
    assert anyio.current_time() - began_s >= 2, "a lower bound: it is not delivered before"


async def test_the_largest_call_is_taken(bells: Bells) -> None:
    body = '"' + "x" * (TICKET_BYTES_MAX - 2) + '"'
    assert await bells.outgoing.send([Message(body, DELAY_S_MAX), *[Message(body)] * (BATCH_MAX - 1)]) == 0
    assert await received(bells, BATCH_MAX - 1) == [body] * (BATCH_MAX - 1)


async def test_a_message_beyond_the_bounds_is_refused_by_itself(bells: Bells, account: Account) -> None:
    if account.name == "ministack":
        pytest.skip("MiniStack takes what AWS refuses: a longer delay, and characters that XML does not have")
    assert await bells.outgoing.send([Message("a", DELAY_S_MAX + 1), Message("\uffff"), Message("sound")]) == 2
    assert await received(bells, 1) == ["sound"]


@pytest.mark.parametrize("queues", [1, READY_MAX])
async def test_bells_of_one_broker_are_heard_by_another(bells: Bells, queues: int) -> None:
    rung = {QueueKey("acme", f"q{at}", NEEDS) for at in range(queues)}
    heard: set[QueueKey] = set()
    all_heard = anyio.Event()

    def looks(ready: Collection[QueueKey] | None) -> None:
        heard.update(ready or ())
        if heard == rung:
            all_heard.set()

    clock, counts = Clock(SYSTEM.wall_ms), Counts()
    tickets = Tickets(*bells, FairQueue(), looks, clock, "broker", counts, Health(), SYSTEM.random)
    async with anyio.create_task_group() as group:
        group.start_soon(tickets.run)
        tickets.ring(rung)
        await all_heard.wait()
        group.cancel_scope.cancel()
    assert counts["tickets_lost"] == 0
