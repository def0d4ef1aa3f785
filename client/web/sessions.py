"""Sessions of browsers and tokens: a stream ends when its session does, and each session has a bounded number.

A session ends when its token expires, or by logging out, which every server of the home knows until then; a stream at
another server goes on.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

import anyio
from msgspec import Struct

from airunner.client.web.endedsessions import EndedSessions
from airunner.protocol.errors import EXIT_UNAVAILABLE, Busy, OperatorError

STREAMS_MAX: Final = 32  # of one session at a time: a tab needs one, and curl one for each job


class Session(Struct, frozen=True):
    """Session: one login of a browser, or all requests with one bearer token; it expires at Unix second `expires_s`."""

    name: str
    expires_s: float


class Over(StrEnum):
    """Why a stream ends before its job does."""

    LOGGED_OUT = "logged-out"
    EXPIRED = "expired"
    STOPPING = "stopping"  # the server: another one may be there soon


class Sessions:
    """Sessions of this process; `now_s` is the wall clock, in Unix seconds, and `ended` the sessions logged out."""

    def __init__(self, now_s: Callable[[], float], ended: EndedSessions) -> None:
        self._now_s = now_s
        self._ended = ended
        self._streams: dict[str, set[anyio.Event]] = {}  # those of each session
        self._stopping = False

    def has_ended(self, session: Session) -> bool:
        """Return whether a session was logged out."""
        return session.name in self._ended

    def end(self, session: Session) -> None:
        """End a session: its streams end, and its cookie is refused. Raises `OperatorError`: this cannot be written."""
        for woken in self._streams.get(session.name, ()):
            woken.set()
        try:
            self._ended.add(session.name, session.expires_s, self._now_s())
        except OSError as error:
            raise OperatorError(
                f"the end of this session cannot be written: {error.strerror}", exit_code=EXIT_UNAVAILABLE
            ) from error

    def stop(self) -> None:
        """End every stream: the server stops."""
        self._stopping = True
        for streams in self._streams.values():
            for woken in streams:
                woken.set()

    @asynccontextmanager
    async def stream(self, session: Session) -> AsyncGenerator[anyio.Event]:
        """Count a stream of a session; the event is set when it is to end. Raises `Busy`: the session has too many."""
        streams = self._streams.setdefault(session.name, set())
        if len(streams) >= STREAMS_MAX:
            raise Busy(f"this session has {STREAMS_MAX} streams open, which is all that it may: close some of them")
        woken = anyio.Event()
        streams.add(woken)
        if self._stopping or self.has_ended(session):
            woken.set()
        try:
            yield woken
        finally:
            streams.discard(woken)
            if not streams:
                self._streams.pop(session.name, None)

    async def over(self, session: Session, woken: anyio.Event) -> Over:
        """Wait for the end of a session, and return why it ended; `woken` is the event of one of its streams."""
        left_s = session.expires_s - self._now_s()
        with anyio.move_on_after(max(0.0, left_s) if math.isfinite(left_s) else math.inf):
            await woken.wait()
        if self._stopping:
            return Over.STOPPING
        return Over.LOGGED_OUT if self.has_ended(session) else Over.EXPIRED
