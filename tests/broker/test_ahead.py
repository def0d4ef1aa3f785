"""Maps ahead: the results of `map`, made by a thread a few items before they are asked for."""

from __future__ import annotations

from contextlib import closing
from threading import Event, active_count, current_thread

import pytest

from airunner.broker.ahead import AHEAD_MAX, AT_ONCE, WORTH_IT, map_ahead


@pytest.mark.parametrize("count", [0, 1, WORTH_IT - 1, WORTH_IT, AHEAD_MAX, AHEAD_MAX + 1, 4 * AHEAD_MAX + 1])
def test_it_gives_what_map_gives_and_ends_its_thread(count: int) -> None:
    before = active_count()
    assert list(map_ahead(str, range(count))) == list(map(str, range(count)))
    assert active_count() == before


@pytest.mark.parametrize("wrong", [0, 1, WORTH_IT, AHEAD_MAX])
def test_what_fails_is_raised_after_the_results_before_it(wrong: int) -> None:
    def made(item: int) -> int:
        if item == wrong:
            raise ValueError(item)
        return item

    before, taken = active_count(), list[int]()
    with pytest.raises(ValueError, match=str(wrong)):
        taken.extend(map_ahead(made, range(AHEAD_MAX + 2)))  # `extend` keeps what came before
    assert taken == list(range(wrong))
    assert active_count() == before


def test_results_are_made_in_another_thread_and_few_ahead() -> None:
    items = range(4 * AHEAD_MAX)
    begun = [Event() for _ in items]
    threads = set[str]()

    def made(item: int) -> int:
        begun[item].set()
        threads.add(current_thread().name)
        return item

    with closing(map_ahead(made, items)) as results:
        for asked in range(1, 2 * AHEAD_MAX):
            next(results)
            begun[AHEAD_MAX - 1 + (asked - 1) // AT_ONCE * AT_ONCE].wait()
            assert not any(event.is_set() for event in begun[AHEAD_MAX + asked - 1 :])
    assert threads == {"ahead"}


def test_to_close_it_ends_its_thread() -> None:
    before = active_count()
    results = map_ahead(str, range(4 * AHEAD_MAX))
    assert next(results) == "0"
    assert active_count() == before + 1
    results.close()
    assert active_count() == before
