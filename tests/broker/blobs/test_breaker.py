"""The breaker before a bucket: while that is away few requests try it, and the first that succeeds opens it for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from airunner.broker.blobs.breaker import LAST_S, TRY_S, Breaker
from airunner.protocol.errors import Busy, NoSpace
from tests.broker.blobs.interleaving import InterleavedObjects, Interleaving


class AwayObjects(InterleavedObjects):
    """Objects that fail as `failure` says, and count how often they are tried."""

    def __init__(self) -> None:
        super().__init__(Interleaving(0))
        self.failure: Exception | None = Busy()
        self.tries = 0

    def missing(self, keys: Sequence[str]) -> tuple[int, ...]:
        self._try()
        return super().missing(keys)

    def keys(self, prefix: str) -> Iterator[str]:
        self._try()
        return super().keys(prefix)

    def _try(self) -> None:
        self.tries += 1
        if self.failure is not None:
            raise self.failure


class Stage:
    """A breaker, its objects and its clock."""

    def __init__(self) -> None:
        self.objects = AwayObjects()
        self.now_s = 0.0
        self.breaker = Breaker(self.objects, lambda: self.now_s)

    def refused_ms(self) -> int | None:
        """Ask; return for how long it is refused."""
        with pytest.raises(Busy) as refused:
            self.breaker.missing(["key"])
        return refused.value.retry_ms


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_while_objects_are_away_requests_are_refused_at_once_and_few_try(stage: Stage) -> None:
    for tenth in range(600):
        stage.now_s = tenth / 10
        stage.refused_ms()
    assert stage.objects.tries <= 4 + 60 / LAST_S
    assert (stage.refused_ms() or 0) <= LAST_S * 1_000 + 1


def test_one_request_at_a_time_tries_and_its_success_is_for_all(stage: Stage) -> None:
    stage.refused_ms()
    stage.now_s += LAST_S
    stage.objects.failure = None
    trying = stage.breaker.keys("p")
    stage.objects.stored["p/one"] = b""
    assert next(trying) == "p/one"
    stage.refused_ms()
    assert stage.objects.tries == 2
    assert list(trying) == []
    assert stage.breaker.missing(["key"]) == (0,)


def test_a_try_that_never_ends_is_not_waited_for_for_ever(stage: Stage) -> None:
    stage.refused_ms()
    stage.now_s += LAST_S
    stage.objects.failure = None
    stage.objects.stored["p/one"] = b""
    trying = stage.breaker.keys("p")
    next(trying)
    stage.now_s += TRY_S
    assert stage.breaker.missing(["key"]) == (0,)


@pytest.mark.parametrize("answer", [NoSpace(), ValueError()])
def test_a_refusal_is_an_answer(stage: Stage, answer: Exception) -> None:
    stage.objects.failure = answer
    for _ in range(3):
        with pytest.raises(type(answer)):
            stage.breaker.missing(["key"])
    assert stage.objects.tries == 3
