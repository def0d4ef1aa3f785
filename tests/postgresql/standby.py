"""Standby servers for tests: copies of a primary that follow it by streaming, synchronously or not, and take over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.postgresql.serving import Server, scratch

NAME = "standby"
STATE = f"SELECT sync_state FROM pg_stat_replication WHERE application_name = '{NAME}' AND state = 'streaming'"


@contextmanager
def standby_of(primary: Server, log: Path, *, synchronous: bool = False) -> Iterator[Server]:
    """Run a standby of a server, which waits for it in each COMMIT if it is `synchronous`."""
    with scratch("standby-") as root, closing(Server(primary.version, root, log, {"hot_standby": "on"})) as standby:
        source = f"host={primary.root} port={primary.port} user=postgres application_name={NAME}"
        standby.run(
            "pg_basebackup", "-D", standby.folder, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", source
        )
        standby.start()
        names = f"'{NAME}'" if synchronous else "''"
        primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = {names}", "SELECT pg_reload_conf()")
        primary.wait_for(STATE, [("sync" if synchronous else "async",)])
        yield standby


def promote(standby: Server) -> None:
    """Make a standby the primary, which waits for no other; returns when it takes writes."""
    standby.run("pg_ctl", "promote", "-D", standby.folder, "-w")
    standby.execute("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
