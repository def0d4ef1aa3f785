"""Cluster of `make up-ha`: PostgreSQL, two brokers and two agents of Procfile.ha on this machine.

```
$AIRUNNER_HOME
├── certs/               keys of the fleet; the brokers' homes link to it
├── broker-a/ broker-b/  a home for each broker, with its id
├── agent-a/  agent-b/   a home for each agent, with its key and token
└── postgres/            the server's socket and its data: closed to other users, so the server asks no password
```

Each process is started again when it ends: honcho alone would end the whole cluster with the first of them.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cluster import CHECKOUT, Ports, airunner, is_up, make_homes, own_environment, start

MAJOR_MIN: Final = 15  # oldest PostgreSQL that brokers use
DEBIAN: Final = Path("/usr/lib/postgresql")  # where Debian's packages keep the programs of each version
BROKERS: Final = ("a", "b")
AGENTS: Final = ("agent-a", "agent-b")
PORTS: Final = (Ports(), Ports(7072, 7073, 8081))  # of the two brokers
SOCKET_BYTES_MAX: Final = 107  # of a Unix socket's path
SERVER_USERS: Final = ("postgres", "nobody")  # PostgreSQL refuses to run as root; the first that exists runs it then
PEER: Final = "fleet"  # name on the allow-list of the key with which brokers connect to each other


class CannotStart(Exception):
    """Cluster that cannot be started; the text says what to do."""


def postgres_programs(environ: Mapping[str, str]) -> Path:
    """Find the folder of PostgreSQL's programs: on the PATH, or Debian's newest. Raises `CannotStart`."""
    found = shutil.which("postgres", path=environ.get("PATH"))
    folders = [Path(found).parent] if found else []
    numbered = [folder for folder in DEBIAN.glob("*/bin") if folder.parent.name.isdecimal()]
    folders += sorted(numbered, key=lambda folder: -int(folder.parent.name))
    for folder in folders:
        if all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb")):
            said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
            if int(said.split()[2].partition(".")[0]) >= MAJOR_MIN:
                return folder
    raise CannotStart(f"`make up-ha` needs PostgreSQL {MAJOR_MIN} or newer: run `apt-get install postgresql`")


def server_user() -> pwd.struct_passwd | None:
    """Return the user to run PostgreSQL as, if we are root; None: ourselves."""
    if os.geteuid():
        return None
    users = {user.pw_name: user for user in pwd.getpwall()}
    return next(users[name] for name in SERVER_USERS if name in users)


def ha_environment(home: Path, ports: tuple[Ports, Ports]) -> dict[str, str]:
    """Return the environment for the processes of Procfile.ha and for their clients. Raises `CannotStart`."""
    environ = own_environment(home)
    user = server_user()
    as_user = f"setpriv --reuid={user.pw_uid} --regid={user.pw_gid} --clear-groups" if user else ""
    folder = home / "postgres"
    for broker, own in zip(BROKERS, ports, strict=True):
        suffix = broker.upper()
        environ[f"AIRUNNER_LISTEN_{suffix}"] = f"tcp://127.0.0.1:{own.requests}"
        environ[f"AIRUNNER_EVENTS_{suffix}"] = f"tcp://127.0.0.1:{own.events}"
        environ[f"AIRUNNER_HTTP_{suffix}"] = f"127.0.0.1:{own.http}"
    return {
        **environ,
        "AIRUNNER_STORE": f"postgresql:///airunner?host={folder}&user=airunner",
        "AIRUNNER_BROKER": ",".join(brokers_of(environ)),
        "POSTGRES_BIN": str(postgres_programs(environ)),
        "POSTGRES_AS": as_user,
        "PGDATA": str(folder / "data"),
        "POSTGRES_SOCKETS": str(folder),
    }


def brokers_of(environ: Mapping[str, str]) -> list[str]:
    """Return the endpoints of the brokers."""
    return [environ[f"AIRUNNER_LISTEN_{broker.upper()}"] for broker in BROKERS]


def make_fleet(home: Path, environ: Mapping[str, str]) -> None:
    """Make what is missing: the homes of agents and brokers, and the database. Raises `CannotStart`."""
    if environ["POSTGRES_AS"] and not home.exists():
        home.mkdir(parents=True)
        home.chmod(0o711)  # the server's user enters it; the folders with keys are closed by themselves
    make_homes(home, environ, AGENTS)
    for broker in BROKERS:
        (home / f"broker-{broker}").mkdir(mode=0o700, exist_ok=True)
        link = home / f"broker-{broker}" / "certs"
        if not link.is_symlink():
            link.symlink_to("../certs")
    if PEER not in (home / "certs" / "allowed-clients").read_text():
        airunner(environ, home, "certs", "add", PEER, "--role", "broker")
    make_database(home / "postgres", environ)


def make_database(folder: Path, environ: Mapping[str, str]) -> None:
    """Make the server's folder with an empty database in it, unless it is there. Raises `CannotStart`."""
    if (folder / "data").exists():
        return
    if len(os.fsencode(folder / ".s.PGSQL.5432")) > SOCKET_BYTES_MAX:
        raise CannotStart(f"{folder} is too long a path for PostgreSQL's socket: set AIRUNNER_HOME to a shorter one")
    folder.mkdir(mode=0o700, exist_ok=True)
    as_user = environ["POSTGRES_AS"].split()
    if user := server_user():
        os.chown(folder, user.pw_uid, user.pw_gid)
        if subprocess.run([*as_user, "test", "-w", str(folder)], cwd="/", check=False).returncode:
            whose = f"the user {user.pw_name}, who runs PostgreSQL for root, cannot enter {folder}"
            remedy = f"run `chmod go+x {shlex.quote(str(folder.parent))}`, or set AIRUNNER_HOME to a folder elsewhere"
            raise CannotStart(f"{whose}: {remedy}")
    programs = Path(environ["POSTGRES_BIN"])
    words = ["--username=airunner", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
    making = folder / "new"  # renamed when it is whole: an interrupted one is made again
    shutil.rmtree(making, ignore_errors=True)
    _run([*as_user, str(programs / "initdb"), "-D", str(making), *words], environ)
    single = [*as_user, str(programs / "postgres"), "--single", "-D", str(making), "postgres"]
    _run(single, environ, "CREATE DATABASE airunner\n")
    making.rename(folder / "data")


def _run(words: Sequence[str], environ: Mapping[str, str], given: str = "") -> None:
    """Run a program of PostgreSQL's in /, which any user may enter. Raises `CannotStart`: it failed."""
    done = subprocess.run(words, env=environ, cwd="/", input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotStart(f"`{shlex.join(words)}` failed:\n{done.stderr.rstrip()}")


def up(home: Path) -> int:
    """Start the cluster, and wait until both brokers reply; return the exit code."""
    try:
        environ = ha_environment(home, PORTS)
        if is_up(home):
            return 1
        make_fleet(home, environ)
    except CannotStart as error:
        print(error, file=sys.stderr)
        return 1
    return start(home, environ, "Procfile.ha", brokers_of(environ))


if __name__ == "__main__":
    sys.exit(up(Path(os.environ.get("AIRUNNER_HOME") or CHECKOUT / ".airunner").absolute()))
