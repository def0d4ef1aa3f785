"""Transactions of the Ledger: each writes a batch of changes, or reads; a full disk gets the least that has to fit.

With a database in this process the statements run in the event loop, and only the commit, and reads that may take long,
are offloaded. With one over a network (`Store.remote`) a whole batch is one piece of offloaded work, and so is a read.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from airunner.broker.disk import Disk
from airunner.broker.entries import ToApply, command_of
from airunner.broker.inbox import Pending
from airunner.broker.lifecycle.commands import Applied, Command, Done, TenantRequest
from airunner.broker.offload import Steps
from airunner.broker.store.batch import Store
from airunner.broker.store.room import Room
from airunner.protocol.errors import NoSpace


class Transactions:
    """Transactions on one `store`, whose `disk` is told whether a batch had room."""

    def __init__(self, store: Store, disk: Disk) -> None:
        self._store = store
        self._disk = disk
        self._remote = store.remote

    def commands(self, entries: Sequence[ToApply]) -> list[Command]:
        """List the commands for the store, each with the room on the disk once all up to it are stored."""
        space = self._disk.look()
        sizes_bytes = [entry.size_bytes for entry in entries if isinstance(entry, Pending)]
        if self._disk.room(space, sum(sizes_bytes)) is Room.AMPLE:
            return [command_of(entry) for entry in entries]
        commands: list[Command] = []
        wanted_bytes = 0
        for entry in entries:
            command = command_of(entry)
            if isinstance(command, TenantRequest):
                size_bytes = entry.size_bytes if isinstance(entry, Pending) else 0
                room = self._disk.room(space, wanted_bytes + size_bytes)
                if room is not Room.AMPLE:
                    command = msgspec.structs.replace(command, room=room)
                if room is not Room.ENDING:
                    wanted_bytes += size_bytes
            commands.append(command)
        return commands

    def write(self, commands: Sequence[Command], now_ms: int) -> Steps[Applied]:
        """Store a batch; on a full disk only ends of jobs and renewals. Raises `NoSpace`, `Busy`: nothing is stored.

        Raises `StoreAway`, `StoreUnsure`, `Fenced`, if the store is `remote`.
        """
        try:
            applied = yield from self._write(commands, now_ms)
        except NoSpace:
            return (yield from self._write_least([when_full(command) for command in commands], now_ms))
        if any(isinstance(command, TenantRequest) and command.room is Room.AMPLE for command in commands):
            self._disk.record_fit()
        return applied

    def _write_least(self, commands: Sequence[Command], now_ms: int) -> Steps[Applied]:
        """Store a batch on a full disk, in space freed by writing the journal back and, if needed, from the ballast."""
        while True:
            yield self._store.write_back
            try:
                applied = yield from self._write(commands, now_ms)
            except NoSpace:
                if not self._disk.free_ballast():
                    self._disk.record_full(ends_stored=False)
                    raise
            else:
                self._disk.record_full(ends_stored=True)
                return applied

    def _write(self, commands: Sequence[Command], now_ms: int) -> Steps[Applied]:
        """Write a batch in one transaction. Raises `NoSpace`, `Busy`: nothing is stored."""
        if self._remote:
            found: list[Applied] = []
            yield lambda: found.append(self._store.apply(commands, now_ms))
            return found[0]
        applied = self._store.stage(commands, now_ms)
        if applied.wrote:
            yield self._store.commit
        else:
            self._store.commit()
        return applied

    def read(self, requests: Sequence[TenantRequest], *, long: bool) -> Steps[list[Done]]:
        """Answer reads; `long`: they may take long. Raises `NoSpace`, `StoreAway`, `Fenced`."""
        if not long and not self._remote:
            return self._store.read(requests)
        done: list[Done] = []
        yield lambda: done.extend(self._store.read(requests))
        return done


def when_full(command: Command) -> Command:
    """Restrict a command for a full disk: it may end a job or renew its lease, but add nothing new."""
    return msgspec.structs.replace(command, room=Room.ENDING) if isinstance(command, TenantRequest) else command
