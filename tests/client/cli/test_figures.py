"""What a job has used, as `show` and `list --columns` say it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from airunner.client.cli.columns import COLUMNS, Table, columns_of
from airunner.client.cli.listing import job_lines
from airunner.protocol.errors import OperatorError
from airunner.protocol.job import Result, Usage
from airunner.protocol.sizes import bytes_text
from tests.client.cli.test_columns import summary
from tests.protocol.examples import JOB_ID, NOW_MS, REPLIES, USAGE

FOUND = REPLIES["JobFound"].job
SUMMARY = summary("j", id=JOB_ID, submitted_ms=NOW_MS, waited_ms=5, result=Result(exit_code=0, usage=USAGE))


def test_sizes_are_in_words() -> None:
    sizes = (0, 1, 1_023, 1_536, 1 << 30, 1 << 52)
    assert ", ".join(map(bytes_text, sizes)) == "0 bytes, 1 byte, 1023 bytes, 1.5 KiB, 1.0 GiB, 4096.0 TiB"


def test_show_says_all_of_a_job_and_what_was_used_and_nothing_of_what_is_not_known() -> None:
    shown = list(job_lines(FOUND))
    for fact in ("FAILED, exit code 7", "sh -c 'make test'", "DEBUG=1", "10 min 00 s", "agent-1"):
        assert fact in "\n".join(shown)
    for line in (
        "waited:       5 ms",
        "checkout:     900 ms",
        "output:       3 bytes on stdout, 4 bytes on stderr",
        "cpu:          600 ms user, 70 ms system",
        "memory:       1.0 MiB at most in one process",
        "disk:         512 bytes read, 1.0 KiB written",
    ):
        assert line in shown
    for nothing in (Result(exit_code=0), Result(exit_code=0, usage=Usage(events=1)), None):
        names = {line.partition(":")[0] for line in job_lines(replace(FOUND, result=nothing, waited_ms=None))}
        assert not names & {"waited", "checkout", "output", "cpu", "memory", "disk"}


def test_a_list_shows_the_columns_that_are_named_in_their_order_and_nothing_of_what_is_not_known() -> None:
    names = columns_of("ID, cpu,memory,events,stdout,stderr,read,written,waited,checkout,cpu")
    heading, row = Table().lines([SUMMARY], NOW_MS, names)
    assert " ".join(heading.split()) == "ID CPU MEMORY EVENTS STDOUT STDERR READ WRITTEN WAITED CHECKOUT"
    used = "670 ms  1.0 MiB  5  3 bytes  4 bytes  512 bytes  1.0 KiB  5 ms  900 ms"
    assert [cell.strip() for cell in row.split("  ") if cell.strip()] == [JOB_ID, *used.split("  ")]
    _, row = Table().lines([replace(SUMMARY, result=None, waited_ms=None)], NOW_MS, ("id", "cpu", "waited"))
    assert row.split() == [JOB_ID, "-", "-"]


def test_a_column_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(OperatorError, match="no such column; the columns are id, state") as refused:
        columns_of("id,colour")
    assert all(name in refused.value.message for name in COLUMNS)
