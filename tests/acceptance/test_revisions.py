"""Peers of other revisions of the protocol are served, or told at once in words that they are not."""

from __future__ import annotations

import msgpack
import pytest

from airunner.protocol.frames import REVISION, SERVED, magic, unserved
from tests.acceptance.conversing import Speaker, conversation, hold, missing
from tests.acceptance.running import RunningBroker


@pytest.mark.parametrize("revision", SERVED)
def test_a_recorded_conversation_of_each_served_revision_goes_as_it_went(broker: RunningBroker, revision: int) -> None:
    with Speaker(broker, magic(revision)) as speaker:
        said = list(hold(conversation(revision), speaker))
    assert len(said) == len(conversation(revision)) > 25
    for kind, then, now in said:
        assert not missing(then, now), kind


@pytest.mark.parametrize("revision", [REVISION + 1, 999_999])
def test_a_peer_of_a_newer_revision_is_refused_in_words_that_it_can_read(broker: RunningBroker, revision: int) -> None:
    with Speaker(broker, magic(revision)) as speaker:
        refused = msgpack.unpackb(speaker.speak(bytes(range(16)), b"whatever that means then"))
    assert (refused["type"], refused["code"]) == ("Refused", "unsupported")
    assert unserved(revision, SERVED) in refused["message"]
