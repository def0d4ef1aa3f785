"""Search of a log by a real broker: it finds what a search of the whole log at home finds, for any pattern."""

from __future__ import annotations

import re

from airunner.sync import Client
from tests.acceptance.running import Cluster

LINES = 60_000  # in several segments
SCRIPT = f"""
seq {LINES}
printf '\\033[1;31mnee\\033[0mdle %s\\r\\n' aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!
seq {LINES}
printf 'no end'
"""
PATTERNS = ["needle a", "7{5}", "^(1|2)0+$", "(?i)N.*E.*D.*L.*E", "!$", "end$"]
ENDLESS = "(a+)+$"  # for a search that goes back


def test_the_broker_finds_the_lines_that_a_search_at_home_finds(standing: Cluster) -> None:
    with Client(standing.broker.requests, home=standing.home) as client:
        job = client.wait(client.submit(command="sh", args=["-c", SCRIPT]), timeout_s=60)
        lines = list(client.logs(job))
        assert len(lines) == 2 * LINES + 2
        plain = [re.sub(r"\x1b\[[0-9;]*m", "", line.text) for line in lines]
        for pattern in PATTERNS:
            compiled = re.compile(pattern)
            expected = [number for number, text in enumerate(plain, start=1) if compiled.search(text)]
            found = list(client.search(job, pattern, regex=True))
            assert [hit.line for hit in found] == expected, pattern
            assert [hit.data for hit in found] == [lines[number - 1].data for number in expected]
        assert list(client.search(job, ENDLESS, regex=True)) == []
        assert [hit.text for hit in client.search(job, from_line=2 * LINES + 1, limit=2)] == [str(LINES), "no end"]
