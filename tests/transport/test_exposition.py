"""The page of metrics: read as often as is bounded, in the format that was asked for, whatever a header says."""

from __future__ import annotations

import anyio
import pytest

from airunner.transport.exposition import FORMATS_MAX, READING_S, READINGS_MAX, MetricsPage
from airunner.transport.metric import Metric, MetricKind, Values
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text"


class Measured:
    """Counts how often it was read."""

    def __init__(self) -> None:
        self.readings = 0
        metric = Metric("airunner_readings", MetricKind.COUNTER, "Readings.", ("name",))
        self.page = MetricsPage([metric], self.read)

    async def read(self) -> Values:
        self.readings += 1
        return {"airunner_readings": {('a "quoted"\nname',): self.readings}}


async def test_values_are_read_for_each_request_until_there_are_too_many() -> None:
    measured = Measured()
    for _ in range(2 * READINGS_MAX):
        reply = await measured.page("")
    assert measured.readings == READINGS_MAX
    assert f'airunner_readings_total{{name="a \\"quoted\\"\\nname"}} {READINGS_MAX}.0\n'.encode() in reply.body
    for _ in range(3):
        await anyio.sleep(READING_S)  # virtual
        await measured.page("")
        await measured.page("")
    assert measured.readings == READINGS_MAX + 3


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("application/json", PLAIN),
        (f"{OPEN};version=1.0.0,text/plain;version=0.0.4;q=0.5", OPEN),
        (f"{OPEN};version=abc", PLAIN),
        (f"{OPEN};version=1.0.0;escaping=é", PLAIN),
        (f"{OPEN};version=1.0.0\nX-Header: 1", PLAIN),
    ],
)
async def test_the_format_is_what_a_sound_header_prefers(accept: str, kind: str) -> None:
    reply = await Measured().page(accept)
    assert reply.kind.startswith(kind)
    assert "\n" not in reply.kind
    assert reply.body.endswith(b"# EOF\n") is (kind == OPEN)


async def test_only_so_many_formats_of_the_same_values_are_written() -> None:
    measured = Measured()
    kinds = [(await measured.page(f"{OPEN};version=1.0.{number}")).kind for number in range(2 * READINGS_MAX)]
    assert len(set(kinds[READINGS_MAX - 1 :])) == FORMATS_MAX + 1
    assert kinds[-1] == PLAIN
