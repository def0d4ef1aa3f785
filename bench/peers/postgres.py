"""PostgreSQL of Debian for a benchmark: a cluster in a folder of its own, with its defaults, so with fsync."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PROGRAMS: Final = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
USER: Final = "postgres"  # Debian's: PostgreSQL refuses to run as root


@contextmanager
def postgres(folder: Path) -> Generator[str]:
    """Run PostgreSQL during the block; yield the folder of its socket."""
    assert PROGRAMS is not None
    user = USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    place = folder / "postgres"
    place.mkdir()
    if os.geteuid() == 0:
        folder.chmod(0o755)  # its user has to get to its own folder inside
        shutil.chown(place, user)
    cluster, log = place / "cluster", place / "log"
    initdb = (PROGRAMS / "initdb", "--pgdata", cluster, "--username", USER, "--auth", "trust")
    subprocess.run(initdb, user=user, check=True, capture_output=True, cwd=place)
    options = f"-c listen_addresses='' -c unix_socket_directories='{place}'"
    control = (PROGRAMS / "pg_ctl", "--pgdata", cluster, "--log", log, "--wait")
    subprocess.run((*control, "--options", options, "start"), user=user, check=True, capture_output=True, cwd=place)
    try:
        yield str(place)
    finally:
        subprocess.run((*control, "--mode", "immediate", "stop"), user=user, check=True, capture_output=True, cwd=place)
