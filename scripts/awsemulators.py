"""Emulators of AWS for tests and for trying things: dynoxide (DynamoDB on SQLite), MiniStack (many services), moto.

ElasticMQ is one of SQS alone, which keeps its limits strictly.

They come from the registries alone and are kept in ~/.cache/airunner, each in a folder of its version: dynoxide is
built by cargo (four minutes of one core), MiniStack and moto are installed from PyPI into a virtual environment of
their own, and ElasticMQ comes from Maven's registry, where there is Maven. The tests find them there, and skip in words
what is missing.

`up` leaves dynoxide and MiniStack running, with a table, queues and an event bus; `down` stops them:

```
$AIRUNNER_HOME/aws
├── dynoxide.db          the tables; they stay
├── *.log                what the two print
└── *.pid                process ids for `down`
```
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

from hacluster import CHECKOUT, CannotStart, stop

DYNOXIDE: Final = "3.2.0"  # of dynoxide-rs, on crates.io
MINISTACK: Final = "1.5.33"
MOTO: Final = "5.2.5"
ELASTICMQ: Final = "1.6.9"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "airunner"
DYNOXIDE_PROGRAM: Final = CACHE / f"dynoxide-{DYNOXIDE}"
VENV: Final = CACHE / f"aws-emulators-{MINISTACK}-{MOTO}"
JARS: Final = CACHE / f"elasticmq-{ELASTICMQ}"
POM: Final = f"""<project><modelVersion>4.0.0</modelVersion>
<groupId>airunner</groupId><artifactId>emulators</artifactId><version>1</version><dependencies><dependency>
<groupId>org.elasticmq</groupId><artifactId>elasticmq-server_2.13</artifactId><version>{ELASTICMQ}</version>
</dependency></dependencies></project>
"""
REGION: Final = "us-east-1"
KEYS: Final = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}  # the emulators believe any
TABLE: Final = "airunner"
STARTS_S: Final = 30  # for an emulator to accept connections
LOOPBACK: Final = "127.0.0.1"


class Started(NamedTuple):
    """Command that starts an emulator, and its environment."""

    words: Sequence[str]
    environ: Mapping[str, str]


def dynoxide(port: int, folder: Path) -> Started:
    """Return the command for dynoxide, with its tables in `folder`: they outlive `kill -9`. Raises `CannotStart`."""
    program = _found("AIRUNNER_DYNOXIDE", DYNOXIDE_PROGRAM, "dynoxide")
    words = (program, "serve", "--host", LOOPBACK, "--port", str(port), "--db-path", str(folder / "dynoxide.db"))
    return Started((*words, "--log", "quiet"), _environment())


def ministack(port: int, folder: Path) -> Started:
    """Return the command for MiniStack, which keeps everything in memory. Raises `CannotStart`."""
    own = {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": LOOPBACK,
        "MINISTACK_HOST": LOOPBACK,  # in the URLs of queues
        "STATE_DIR": str(folder),
        "PERSIST_STATE": "0",
        "IOT_MTLS_ENABLED": "0",  # it would listen on a port of its own
        "SFTP_ENABLED": "0",  # likewise
        "LOG_LEVEL": "WARNING",
    }
    return Started((_found("AIRUNNER_MINISTACK", VENV / "bin/ministack", "ministack"),), {**_environment(), **own})


def moto(port: int, _folder: Path) -> Started:
    """Return the command for moto's server, which keeps everything in memory. Raises `CannotStart`."""
    program = _found("AIRUNNER_MOTO", VENV / "bin/moto_server", "moto_server")
    return Started((program, "-H", LOOPBACK, "-p", str(port)), _environment())


def elasticmq(port: int, _folder: Path) -> Started:
    """Return the command for ElasticMQ, which keeps everything in memory. Raises `CannotStart`."""
    java = shutil.which("java")
    if java is None or not JARS.is_dir():
        raise CannotStart("there is no ElasticMQ on this machine: install Java and Maven, and run `make aws-emulators`")
    settings = {
        "rest-sqs.bind-hostname": LOOPBACK,
        "rest-sqs.bind-port": port,
        "rest-sqs.sqs-limits": "strict",
        "rest-stats.enabled": "false",  # it would listen on a port of its own
        "node-address.host": LOOPBACK,  # in the URLs of queues
        "node-address.port": port,
    }
    words = (java, "-Xmx256m", *(f"-D{name}={value}" for name, value in settings.items()))
    return Started((*words, "-cp", f"{JARS}/*", "org.elasticmq.server.Main"), _environment())


def _found(variable: str, cached: Path, name: str) -> str:
    """Find a program: where the variable says, in the cache, or on the PATH."""
    found = os.environ.get(variable) or (str(cached) if cached.is_file() else shutil.which(name))
    if not found:
        raise CannotStart(f"there is no {name} on this machine: run `make aws-emulators`")
    return found


def _environment() -> dict[str, str]:
    """Return this process's environment without what concerns a real account, or other emulators."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MINISTACK_"))}


def install(only: str | None = None) -> int:
    """Install and build what is not in the cache, or `only` what is on PyPI ("pypi"); return the exit code."""
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        _install_venv()
        if only is None:
            _build_dynoxide()
            _copy_elasticmq()
    except CannotStart as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"`{' '.join(map(str, error.cmd))}` failed with exit code {error.returncode}", file=sys.stderr)
        return 1
    programs = (DYNOXIDE_PROGRAM, VENV / "bin/ministack", VENV / "bin/moto_server")
    print(*(program for program in programs if program.is_file()), sep="\n")
    return 0


def _install_venv() -> None:
    if (VENV / ".made").is_file():
        return
    shutil.rmtree(VENV, ignore_errors=True)  # an interrupted one
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    pip = (VENV / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, f"ministack=={MINISTACK}", f"moto[server]=={MOTO}"], check=True)
    (VENV / ".made").touch()


def _build_dynoxide() -> None:
    if DYNOXIDE_PROGRAM.is_file():
        return
    if shutil.which("cargo") is None:
        raise CannotStart("there is no cargo on the PATH, which builds dynoxide: install Rust")
    with tempfile.TemporaryDirectory() as folder:
        words = ["cargo", "install", "--quiet", "--root", folder, "--version", DYNOXIDE, "dynoxide-rs"]
        subprocess.run(words, check=True)
        shutil.move(Path(folder) / "bin/dynoxide", DYNOXIDE_PROGRAM)


def _copy_elasticmq() -> None:
    if JARS.is_dir():
        return
    if shutil.which("mvn") is None:
        print("ElasticMQ is left out: there is no mvn on the PATH; its tests are skipped", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        (Path(folder) / "pom.xml").write_text(POM)
        words = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=jars"]
        subprocess.run(words, cwd=folder, stdout=subprocess.DEVNULL, check=True)  # it prints colours
        (Path(folder) / "jars").rename(JARS)


PORTS: Final = {dynoxide: 8000, ministack: 4566}  # of `make aws-up`: their own defaults


def up(folder: Path) -> int:
    """Start the emulators and make the table; return the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for emulator, port in PORTS.items():
            started.append(_start(emulator(port, folder), folder, emulator.__name__, port))
        _make_table()
        _make_services()
    except CannotStart as error:
        for process in started:
            stop(process.pid)
        print(error, file=sys.stderr)
        return 1
    for emulator, process in zip(PORTS, started, strict=True):
        _record(folder, emulator.__name__).write_text(f"{process.pid}\n")
    print(f"dynoxide and MiniStack are running; their logs are in {folder}. To use them:\n")
    print("  export", " ".join(f"{name}={value}" for name, value in KEYS.items()))
    print(f"  airunner orchestrator --store '{store_url()}'\n\nTo stop them: `make aws-down`")
    return 0


def store_url() -> str:
    """Return the URL of the store that `up` has made."""
    tables, others = (f"http://{LOOPBACK}:{port}" for port in PORTS.values())
    return f"aws:{TABLE}?region={REGION}&endpoint={tables}&sqs={others}&events={others}&bus={TABLE}"


def _start(command: Started, folder: Path, name: str, port: int) -> subprocess.Popen[bytes]:
    """Start an emulator, and return when it accepts connections. Raises `CannotStart`."""
    if pid := _running(folder, name):
        raise CannotStart(f"{name} is running as process {pid}; stop it with `make aws-down`")
    if accepts(port):
        raise CannotStart(f"port {port} of {name} is taken by another process")
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command.words,
            env=command.environ,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    until = time.monotonic() + STARTS_S
    while process.poll() is None and time.monotonic() < until:
        if accepts(port):
            return process
        time.sleep(0.05)
    stop(process.pid)
    raise CannotStart(f"{name} did not start; see {log}")


def accepts(port: int) -> bool:
    """Return whether a process accepts connections to a port of this machine."""
    with socket.socket() as tried:
        return tried.connect_ex((LOOPBACK, port)) == 0


def _make_table() -> None:
    """Make the table on dynoxide, unless it is there."""
    from airunner.broker.store.dynamodb.schema import table_definition

    tables = _client("dynamodb", PORTS[dynoxide])
    if TABLE not in tables.list_tables()["TableNames"]:
        tables.create_table(**table_definition(TABLE))


def _make_services() -> None:
    """Make the queues and the event bus on MiniStack, which has forgotten them if it was stopped."""
    sqs = _client("sqs", PORTS[ministack])
    for queue in ("bells", "submissions"):
        sqs.create_queue(QueueName=f"{TABLE}-{queue}")
    _client("events", PORTS[ministack]).create_event_bus(Name=TABLE)


def _client(service: str, port: int) -> Any:  # noqa: ANN401 - boto3 has no types
    keys = {name.lower(): key for name, key in KEYS.items()}
    url = f"http://{LOOPBACK}:{port}"
    return import_module("boto3").client(service, region_name=REGION, endpoint_url=url, **keys)


def _record(folder: Path, name: str) -> Path:
    return folder / f"{name}.pid"


def _running(folder: Path, name: str) -> int | None:
    """Return the process id that `up` recorded; None: it recorded none, or the process has ended."""
    try:
        pid = int(_record(folder, name).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if name.encode() in words else None


def down(folder: Path) -> int:
    """Stop what `up` has started; return the exit code."""
    for emulator in PORTS:
        if pid := _running(folder, emulator.__name__):
            stop(pid)
            print(f"{emulator.__name__} is stopped")
        _record(folder, emulator.__name__).unlink(missing_ok=True)
    return 0


def main() -> int:
    """Run `install`, `up` or `down`, as the first argument says; `up` uses $AIRUNNER_HOME or CHECKOUT/.airunner."""
    if sys.argv[1] == "install":
        return install(*sys.argv[2:])
    folder = Path(os.environ.get("AIRUNNER_HOME") or CHECKOUT / ".airunner").absolute() / "aws"
    return {"up": up, "down": down}[sys.argv[1]](folder)


if __name__ == "__main__":
    sys.exit(main())
