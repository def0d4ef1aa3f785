"""What a broker decompresses is counted: each batch once, to check it, and none for a reader who does it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from airunner.broker.ledger import BATCH_UNITS_MAX
from airunner.broker.requests import KINDS
from airunner.protocol import compression
from airunner.protocol.replies import JobEventsReplayed
from airunner.protocol.requests import BATCHES_MAX, PublishJobEvents, ReplayJobEvents
from tests.conformance.driving import Driver, batch, packed


def test_a_batch_is_decompressed_once_to_check_it_and_not_to_replay_it(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    original = compression.zstd.ZstdDecompressor

    def counted() -> object:
        nonlocal made
        made += 1
        return original()

    monkeypatch.setattr(compression.zstd, "ZstdDecompressor", counted)
    lease = driver.started()
    batches = tuple(packed(batch(lease, index, "x" * 9_000)) for index in range(5))
    driver.outcome(PublishJobEvents(batches=batches))
    assert made == len(batches)
    driver.outcome(PublishJobEvents(batches=batches))
    assert made == len(batches), "a repeat"
    replay = ReplayJobEvents(job_id=lease.job_id, from_sequence=3, zstd=True)
    assert len(driver.reply(JobEventsReplayed, replay).runs) == len(batches)
    assert made == len(batches)


def test_a_request_that_decompresses_much_is_expected_to_take_long_and_a_broken_frame_is_not(driver: Driver) -> None:
    large = packed(batch(driver.started(), 0, *["x" * 64_000] * 8))
    price = KINDS[PublishJobEvents].price
    assert price(PublishJobEvents(batches=(large,) * BATCHES_MAX)) > BATCH_UNITS_MAX, "it shares its batch with none"
    broken = replace(large, events=large.events[:5])
    assert price(PublishJobEvents(batches=(broken,))) == 1
