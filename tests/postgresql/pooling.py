"""PgBouncer for tests, in transaction mode: each transaction of a client may be on another connection to the server."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.postgresql.serving import as_user, free_port, missing, scratch

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")


@contextmanager
def pooled(url: str) -> Iterator[str]:
    """Run a pooler before a server with a Unix socket; yield its URL for the same database. Skips if it is missing."""
    if PROGRAM is None:
        missing("PgBouncer", "install Debian's pgbouncer")
    at = conninfo_to_dict(url)
    with scratch("pgbouncer-") as root:
        port = free_port()
        (root / "users").write_text(f'"{at["user"]}" ""\n')
        (root / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={at['host']} port={at['port']}\n[pgbouncer]\nlisten_addr =\nlisten_port = {port}\n"
            f"unix_socket_dir = {root}\nauth_type = trust\nauth_file = {root}/users\npool_mode = transaction\n"
            "default_pool_size = 4\nserver_tls_sslmode = disable\n"
        )
        command = ["setpriv", "--pdeathsig", "KILL", str(PROGRAM), str(root / "pgbouncer.ini")]
        process = subprocess.Popen(command, **as_user(), stderr=subprocess.PIPE, text=True)
        assert process.stderr
        try:
            for line in process.stderr:
                if "process up" in line:
                    break
            else:
                pytest.fail("PgBouncer does not start")
            yield f"postgresql://{at['user']}@/{at['dbname']}?host={root}&port={port}"
        finally:
            process.kill()
            process.communicate()
