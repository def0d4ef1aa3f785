"""Brokers of one database that take turns, as if clients came to each in rotation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Final

from msgspec.structs import replace

from airunner.broker.lifecycle.commands import Applied, Command, Done, Expire, News, RenewAll, TenantRequest
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Engine

OWN: Final = (set[type](), {Expire}, {RenewAll})  # what each broker does, or knows, of the jobs that it owns
OF_ONE_BROKER: Final = {  # laws about the steps of one broker, which name all that it owns
    "very_many_that_fall_due_at_once_do_so_in_steps",
    "jobs_behind_expired_ones_are_leased",
    "a_grant_that_nobody_heard_of_may_be_granted_again",
}


class Rotation(Store):
    """Store of several brokers: each batch is applied by the next one, and the others hear of what became ready."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        super().__init__(engines[0])
        self._stores = [Store(engine) for engine in engines]
        self._turns = cycle(self._stores)
        self.brokers = len(engines)

    def apply(self, commands: Sequence[Command], now_ms: int) -> Applied:
        if {*map(type, commands)} not in OWN:
            return self._applied(next(self._turns), commands, now_ms)
        every = [self._applied(store, commands, now_ms) for store in self._stores]
        return replace(
            every[-1], done=[_together(done) for done in zip(*(applied.done for applied in every), strict=True)]
        )

    def _applied(self, store: Store, commands: Sequence[Command], now_ms: int) -> Applied:
        applied = store.apply(commands, now_ms)
        for other in self._stores:
            if other is not store and (ready := {key for done in applied.done for key in done.news.ready}):
                other.engine.forget_places(ready)
        due = [store.engine.next_due_ms() for store in self._stores]
        return replace(applied, next_due_ms=min((at for at in due if at is not None), default=None))

    def read(self, commands: Sequence[TenantRequest]) -> list[Done]:
        return next(self._turns).read(commands)


def _together(every: Sequence[Done]) -> Done:
    """What several brokers did, as if one had."""
    news = News(
        appended=[appended for done in every for appended in done.news.appended],
        ready={key for done in every for key in done.news.ready},
        nudged=[job for done in every for job in done.news.nudged],
        follow_ups=[follow_up for done in every for follow_up in done.news.follow_ups],
        more=any(done.news.more for done in every),
    )
    return Done(every[0].reply, news, sum(done.cost for done in every))
