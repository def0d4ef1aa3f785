"""Queues and a bus beside a table, as deploy/aws makes them, in an emulator that has all of these services."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.aws.serving import ENGINES, Account

HAVE_ALL: Final = tuple(name for name in ENGINES if name != "dynoxide")  # that have more services than DynamoDB
VISIBILITY_S: Final = 1  # short, since tests wait for it in real time
RECEIVES_MAX: Final = 2
POLL_S: Final = 20


class Services:
    """Queues and a bus for the store in `table`; a rule sends each event on the bus to the queue `events`."""

    def __init__(self, account: Account, table: str) -> None:
        self.account, self.table = account, table
        self.sqs, self.eventbridge = account.client("sqs"), account.client("events")
        self.dead = self._create("submissions-dead")
        redrive = {"deadLetterTargetArn": self.arn(self.dead), "maxReceiveCount": RECEIVES_MAX}
        self.bells = self._create("bells", VisibilityTimeout=str(VISIBILITY_S))
        self.submissions = self._create(
            "submissions", VisibilityTimeout=str(VISIBILITY_S), RedrivePolicy=json.dumps(redrive)
        )
        self.events = self._create("events")
        self._let_rules_send_to(self.events)
        self.eventbridge.create_event_bus(Name=table)
        pattern = json.dumps({"source": ["airunner"]})
        self.eventbridge.put_rule(Name=f"{table}-events", EventBusName=table, EventPattern=pattern)
        target = {"Id": "queue", "Arn": self.arn(self.events)}
        self.eventbridge.put_targets(Rule=f"{table}-events", EventBusName=table, Targets=[target])

    @property
    def store(self) -> str:
        """URL of the store, with its bus."""
        return f"{self.account.store(self.table)}&bus={self.table}"

    def arn(self, queue: str) -> str:
        """Return the ARN of a queue."""
        answer = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
        return str(answer["Attributes"]["QueueArn"])

    def submit(self, **fields: Any) -> None:
        """Send a submission, as EventBridge Scheduler does."""
        self.sqs.send_message(QueueUrl=self.submissions, MessageBody=json.dumps(fields))

    def receive(self, queue: str) -> Iterator[str]:
        """Receive messages for ever, and delete each; fails if none comes for `POLL_S`."""
        while True:
            answer = self.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=POLL_S, MaxNumberOfMessages=10)
            assert answer.get("Messages"), f"no message in {queue}"
            for message in answer["Messages"]:
                self.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                yield message["Body"]

    def close(self) -> None:
        """Delete all of it."""
        self.eventbridge.remove_targets(Rule=f"{self.table}-events", EventBusName=self.table, Ids=["queue"])
        self.eventbridge.delete_rule(Name=f"{self.table}-events", EventBusName=self.table)
        self.eventbridge.delete_event_bus(Name=self.table)
        for queue in (self.bells, self.submissions, self.dead, self.events):
            self.sqs.delete_queue(QueueUrl=queue)

    def _let_rules_send_to(self, queue: str) -> None:
        allowed = {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": self.arn(queue),
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        self.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})

    def _create(self, name: str, **attributes: str) -> str:
        created = self.sqs.create_queue(QueueName=f"{self.table}-{name}", Attributes=attributes)
        return str(created["QueueUrl"])


@contextmanager
def services(account: Account) -> Iterator[Services]:
    """Make a table with queues and a bus."""
    made = Services(account, account.create())
    try:
        yield made
    finally:
        made.close()
        account.drop(made.table)
