"""Standby servers for tests: copies of a primary that follow it by streaming, synchronously or not, and take over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tests.postgresql.serving import Server, scratch, serving

NAME = "standby"
STATE = f"SELECT sync_state FROM pg_stat_replication WHERE application_name = '{NAME}' AND state = 'streaming'"


@contextmanager
def standby_of(primary: Server, log: Path, *, synchronous: bool = False) -> Iterator[Server]:
    """Run a standby of a server, which waits for it in each COMMIT if it is `synchronous`."""
    with scratch("standby-") as root, closing(Server(primary.version, root, log, primary.given)) as standby:
        follow(standby, primary, synchronous=synchronous)
        yield standby


def follow(standby: Server, primary: Server, *, synchronous: bool) -> None:
    """Make a server that does not run a standby of another one; returns when it follows."""
    shutil.rmtree(standby.folder, ignore_errors=True)
    source = f"host={primary.root} port={primary.port} user=postgres application_name={NAME}"
    options = ("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
    standby.run("pg_basebackup", "-D", standby.folder, *options, "-d", source)
    standby.start()
    names = f"'{NAME}'" if synchronous else "''"
    primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = {names}", "SELECT pg_reload_conf()")
    primary.wait_for(STATE, [("sync" if synchronous else "async",)])


def part(standby: Server) -> None:
    """Part a standby from its primary, which goes on without it, or waits for it."""
    standby.execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
    standby.wait_for("SELECT count(*) FROM pg_stat_wal_receiver", [(0,)])


def promote(standby: Server) -> None:
    """Make a standby the primary, which waits for no other; returns when it takes writes."""
    standby.run("pg_ctl", "promote", "-D", standby.folder, "-w")
    standby.execute("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")


class Pair:
    """Primary and standby, which change places at each failover; each keeps its port.

    synchronous: the primary waits for the standby in each COMMIT
    """

    def __init__(self, version: int, logs: Path, ends: ExitStack, *, synchronous: bool) -> None:
        self.primary = ends.enter_context(serving(version, logs / "postgresql-1.log"))
        self.synchronous = synchronous
        log = logs / "postgresql-2.log"
        self.standby = ends.enter_context(standby_of(self.primary, log, synchronous=synchronous))

    def url(self, database: str) -> str:
        """Build the URL of a database on whichever server is the primary."""
        one, other = self.primary, self.standby
        places = ",".join(f"127.0.0.1:{port}" for port in sorted((one.port, other.port)))
        return one.url(database, tcp=True, target_session_attrs="read-write").replace(f"127.0.0.1:{one.port}", places)

    def fail_over(self) -> None:
        """Kill the primary and promote the standby."""
        self.primary.kill()
        promote(self.standby)
        self.primary, self.standby = self.standby, self.primary

    def mend(self) -> None:
        """Make the server that was killed the standby of the other."""
        follow(self.standby, self.primary, synchronous=self.synchronous)
