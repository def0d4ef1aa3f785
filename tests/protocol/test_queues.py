"""What is said of queues on the wire."""

from __future__ import annotations

import msgspec
import pytest

from airunner.protocol.coding import decode_reply, decode_request, encode
from airunner.protocol.errors import BadRequest
from airunner.protocol.queues import QueueMode, QueueSummary
from airunner.protocol.replies import QueuesListed
from airunner.protocol.requests import UpdateQueue


def test_modes_go_by_their_words() -> None:
    assert {str(mode) for mode in QueueMode} == {"open", "paused", "draining"}
    for mode in QueueMode:
        request = UpdateQueue(queue="q", mode=mode)
        assert decode_request(encode(request)) == request


@pytest.mark.parametrize("wrong", [{"mode": "closed"}, {"mode": 1}, {"queue": "no spaces"}, {"queue": ""}])
def test_another_mode_or_a_name_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    request = {"type": "UpdateQueue", "queue": "q", "mode": "open", **wrong}
    with pytest.raises(BadRequest):
        decode_request(msgspec.msgpack.encode(request))


def test_a_summary_says_only_what_is_there() -> None:
    idle = QueueSummary(queue="q", mode=QueueMode.OPEN, waiting=0, running=0)
    assert msgspec.to_builtins(idle) == {"queue": "q", "mode": "open", "waiting": 0, "running": 0}
    busy = QueueSummary(queue="q", mode=QueueMode.PAUSED, waiting=3, running=1, delayed=2, oldest_ms=5)
    listed = QueuesListed(queues=(idle, busy), more=True)
    assert decode_reply(encode(listed)) == listed
