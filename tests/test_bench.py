"""The benchmark's table: targets from references of the same round, and the round that stands for all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from bench.__main__ import measure
from bench.client import first_submit_ms
from bench.cluster import Cluster
from bench.figures import Bound, Figure, Reading, Row, Sample, rows
from bench.group import Group, Round
from bench.groups import GROUPS
from bench.product import WORKING_TREE, Product, Unmeasured, revision
from bench.results import Report, report
from bench.table import COLUMNS, beside, legend, missed, number, table

RATE = Figure("end to end", "jobs/s", Bound.LEAST, 0.25, of="SQLite alone")
LATENCY = Figure("median", "ms", Bound.MOST, 4, 0.6, of="an fsync")
PRINTED = Figure("a job in the file", "bytes")


def made(figure: Figure, *readings: Reading, base: tuple[float, ...] = ()) -> Row:
    samples = [{figure.name: reading} for reading in readings]
    (row,) = rows("queue", [figure], samples, [{figure.name: Reading(value)} for value in base])
    return row


@pytest.mark.parametrize(
    ("figure", "reading", "target", "met"),
    [
        (RATE, Reading(9_500, 38_000), 9_500, True),
        (RATE, Reading(9_499, 38_000), 9_500, False),
        (LATENCY, Reading(1.4, 0.2), 1.4, True),
        (LATENCY, Reading(1.5, 0.2), 1.4, False),
        (Figure("Ping", "µs", Bound.MOST, offset=100), Reading(99), 100, True),
        (PRINTED, Reading(700), None, None),
    ],
)
def test_a_target_is_a_multiple_of_its_reference_and_an_offset(
    figure: Figure, reading: Reading, target: float | None, met: object
) -> None:
    row = made(figure, reading)
    assert row.target == pytest.approx(target) if target else row.target is None
    assert row.met is met


def test_the_round_in_the_middle_of_the_shares_stands_for_all() -> None:
    slow_machine = Reading(1_000, 3_000)  # a third: most of its target, and least in value
    row = made(RATE, Reading(9_000, 38_000), slow_machine, Reading(9_600, 38_000))
    assert (row.value, row.reference, row.met) == (9_600, 38_000, True)
    assert row.values == [9_000, 1_000, 9_600]


def test_a_revision_is_compared_round_by_round() -> None:
    row = made(RATE, Reading(400, 1), Reading(200, 1), Reading(900, 1), base=(200, 100, 300))
    assert (row.base, row.to_base) == (200, 2)


def test_a_revision_is_measured_in_turn_and_what_it_cannot_is_named() -> None:
    asked: list[str] = []

    @contextmanager
    def opened(product: Product) -> Iterator[Round]:
        def measured() -> Sample:
            asked.append(product.name)
            if asked[2:].count("old") and product.name == "old":
                raise Unmeasured("no such request")
            return {RATE.name: Reading(len(asked), 1)}

        yield measured

    notes: list[str] = []
    products = [Product(name, "python", ()) for name in ("new", "old")]
    (row,) = measure(Group("queue", (RATE,), opened), products, notes)
    assert asked == ["new", "old", "new", "old", "new"]
    assert notes == ["queue is not measured on old: no such request"]
    assert (row.values, row.base) == ([1, 3, 5], 2)


def test_a_figure_that_a_revision_does_not_have_is_not_compared() -> None:
    assert (made(RATE, Reading(400, 1)).to_base, made(RATE, Reading(400, 1), base=(0,)).to_base) == (None, None)


def test_the_table_has_80_columns_and_says_what_is_missed() -> None:
    measured = [
        made(RATE, Reading(2_900, 38_000), base=(1_450,)),
        made(LATENCY, Reading(1.2, 0.2)),
        made(PRINTED, Reading(700)),
    ]
    lines = list(table(measured))
    assert lines == [
        "figure                              measured      target  reference   ratio  met",
        "queue",
        "  end to end, jobs/s                   2,900    >= 9,500     38,000   0.076  NO",
        "  median, ms                            1.20     <= 1.40      0.200    6.00  yes",
        "  a job in the file, bytes               700                      -       -",
    ]
    assert list(table(measured, "4cc8e09"))[2].split()[4:] == ["2,900", ">=", "9,500", "1,450", "2.00", "NO"]
    assert missed(measured) == ["queue: end to end"]
    assert "".join(legend(measured)).count("SQLite alone") == 1


def test_every_figure_has_a_name_that_fits_the_table() -> None:
    for group in GROUPS:
        readings = {figure.name: Reading(123_456.0, 123_456.0) for figure in group.figures}
        assert len(readings) == len(group.figures), "two figures have the same name"
        measured = list(rows(group.name, group.figures, [readings]))
        assert max(map(len, (*table(measured), *legend(measured)))) <= COLUMNS, group.name


def test_peers_stand_beside_each_other_with_what_they_have_measured() -> None:
    readings = {"airunner": {"end to end": Reading(9_500.0), "median": Reading(1.5)}, "peer": {"median": Reading(11.2)}}
    measured = [row for name, sample in readings.items() for row in rows(name, [RATE, LATENCY], [sample])]
    assert [line.split() for line in beside(measured)] == [
        ["figure", "airunner", "peer"],
        ["end", "to", "end,", "jobs/s", "9,500", "-"],
        ["median,", "ms", "1.50", "11.2"],
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(38_000.4, "38,000"), (99.94, "99.9"), (9.5, "9.50"), (0.0761, "0.076"), (None, "-")]
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_product_runs_a_function_in_a_process_of_its_own() -> None:
    assert WORKING_TREE.call(number, 38_000.4) == "38,000"


def test_what_a_function_of_a_product_failed_with_is_said(tmp_path: Path) -> None:
    where = Cluster("tcp://127.0.0.1:1", tmp_path, "token", broker_pid=1)
    with pytest.raises(Unmeasured, match=re.escape(str(tmp_path))):  # there are no keys
        WORKING_TREE.call(first_submit_ms, where)
    with pytest.raises(Unmeasured, match="no-such-revision"), revision("no-such-revision"):
        pass


def test_results_are_read_back_as_they_were_written() -> None:
    result = report([made(RATE, Reading(2_900, 38_000))], ["many is not measured"], "4cc8e09", 1.5)
    assert msgspec.json.decode(msgspec.json.encode(result), type=Report) == result
