"""Door of a job: accepts connections at the job's socket while its command runs, and answers their requests."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

import anyio

from airunner.agent.artifacts.collecting import TooManyArtifacts
from airunner.agent.artifacts.flow import leaves
from airunner.agent.artifacts.step import ArtifactStep
from airunner.agent.jobsocket.callers import keeper_of, refusal_of
from airunner.agent.jobsocket.connection import Hungup, JobConnection
from airunner.agent.jobsocket.putting import Puts, put_artifacts
from airunner.agent.launcher.contract import LeaseEnded, Process
from airunner.protocol.errors import BadRequest, Forbidden, PeerError, Quota, StaleToken
from airunner.protocol.jobsocket import PutArtifacts, SocketRefused, ToAgent, ToJob

CONNECTIONS_MAX: Final = 4  # of a job, served at a time; others wait until one of these ends
ACCEPT_PAUSE_S: Final = 1.0  # after a failure to accept, for lack of descriptors

Answer = Callable[[JobConnection, Puts], Awaitable[ToJob]]

REQUESTS: Final[Mapping[type[ToAgent], Answer]] = MappingProxyType({PutArtifacts: put_artifacts})
"""Requests of jobs, and what answers each."""


async def serve(process: Process, step: ArtifactStep) -> None:
    """Serve the socket of the job that a process runs, until cancelled; `step` keeps the files that the job leaves."""
    workspace = step.workspace
    if workspace.listening is None:
        return
    puts = Puts(step.uplink, step.lease.ref, step.keep, step.say, step.bytes_max, step.put)
    uid = os.geteuid() if workspace.user is None else workspace.user.uid
    door = Door(uid, keeper_of(process.pid), puts)
    free = anyio.Semaphore(CONNECTIONS_MAX)
    async with anyio.create_task_group() as group:
        while True:
            await free.acquire()
            connection = await _accepted(workspace.listening)
            group.start_soon(door.answer, connection, free)


class Door:
    """Door of one job, whose processes run as the user `uid` or as root, and descend from the process `keeper`."""

    def __init__(self, uid: int, keeper: int | None, puts: Puts) -> None:
        self._uid = uid
        self._keeper = keeper
        self._puts = puts

    async def answer(self, end: socket.socket, free: anyio.Semaphore) -> None:
        """Answer the request of a connection, close it, and release `free`."""
        connection = JobConnection(end)
        try:
            with end, suppress(Hungup):
                await connection.send(await self._answer(connection, end))
        finally:
            free.release()

    async def _answer(self, connection: JobConnection, end: socket.socket) -> ToJob:
        """Return the answer to a request, or its refusal. Raises `Hungup`."""
        failures: list[Exception] = []
        try:
            if (why := refusal_of(end, self._uid, self._keeper)) is not None:
                raise Forbidden(why)
            request = await connection.receive()
            if (answer := REQUESTS.get(type(request))) is None:
                raise BadRequest("this is no request")
            return await answer(connection, self._puts)
        except* (PeerError, TooManyArtifacts, LeaseEnded) as errors:
            failures += leaves(errors)
        except* Hungup:
            failures = [Hungup()]
        return _refusal(failures[0])


def _refusal(error: Exception) -> SocketRefused:
    match error:
        case PeerError():
            return SocketRefused(code=error.code, message=error.message)
        case TooManyArtifacts():
            return SocketRefused(code=Quota.code, message=f"the files are not kept: {error}")
        case LeaseEnded():
            return SocketRefused(code=StaleToken.code, message="the broker has given the job to another agent")
        case _:
            raise error


async def _accepted(listening: socket.socket) -> socket.socket:
    """Accept a connection, which does not block."""
    while True:
        await anyio.wait_readable(listening)
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            continue
        except OSError:
            await anyio.sleep(ACCEPT_PAUSE_S)
            continue
        connection.settimeout(0)
        return connection
