"""Emulators of AWS for tests: each is started when the first test asks for it, once a session, in a folder of its own.

They end when the process that started them ends, however that does. `live` is AWS itself, and only where the
environment names a prefix for its tables (`make aws-live`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import awsemulators
import pytest

from tests.postgresql.serving import STARTS_MAX, WAITS_MAX, free_port, scratch

COMMANDS: Final[dict[str, Callable[[int, Path], awsemulators.Started]]] = {
    "dynoxide": awsemulators.dynoxide,
    "ministack": awsemulators.ministack,
    "moto": awsemulators.moto,
    "elasticmq": awsemulators.elasticmq,
}
LIVE: Final = "AIRUNNER_AWS_LIVE"  # prefix of the tables that tests make in a real account
ENGINES: Final = ("dynoxide", "ministack", *(("live",) if os.environ.get(LIVE) else ()))  # that keep the laws
CONNECTIONS: Final = 32  # to DynamoDB: those of several brokers
ENDING: Final = ("setpriv", "--pdeathsig", "KILL")
NO_ACCOUNT: Final = {  # no test finds a real account by itself, and none waits for one
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    **awsemulators.KEYS,
}


def is_installed(name: str) -> bool:
    """Return whether an emulator is installed."""
    try:
        COMMANDS[name](0, Path())
    except awsemulators.CannotStart:
        return False
    return True


ALL_LAWS: Final = bool(os.environ.get("AIRUNNER_AWS_LAWS"))  # `make aws-laws`: everything that takes emulators long
LESSER: Final = "ministack" if is_installed("dynoxide") else "dynoxide"  # which takes longer, or is not there


def require(name: str) -> None:
    """Skip the test if an emulator is not installed, in continuous integration too: one takes minutes to build."""
    try:
        COMMANDS[name](0, Path())
    except awsemulators.CannotStart as error:
        pytest.skip(str(error))


class Account:
    """Account of AWS, or an emulator of one: what tests ask of it."""

    def __init__(self, name: str, region: str, prefix: str, url: str | None = None) -> None:
        self.name = name
        self.region = region
        self.url = url
        self._prefix = prefix
        self._numbers = count(1)

    def client(self, service: str = "dynamodb", **options: Any) -> Any:
        """Make a client of boto3's that sends each request once, unless told otherwise."""
        import boto3
        from botocore.config import Config

        config = Config(**{"retries": {"total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 30, **options})
        return boto3.client(service, region_name=self.region, endpoint_url=self.url, config=config)

    @cached_property
    def tables(self) -> Any:
        """The client of DynamoDB that tests share: to make one takes longer than most of what they do with it."""
        return self.client(max_pool_connections=CONNECTIONS)

    def name_of_table(self) -> str:
        """Choose the name of a table that is not there yet."""
        return f"{self._prefix}-{os.getpid()}-{next(self._numbers)}"

    def create(self) -> str:
        """Create an empty table as the engine wants it, and return its name.

        Nothing in it goes by TTL: the instants of tests are long past, or far away.
        """
        from airunner.broker.store.dynamodb.schema import table_definition

        name, client = self.name_of_table(), self.tables
        client.create_table(**table_definition(name))
        client.get_waiter("table_exists").wait(TableName=name)
        return name

    def drop(self, table: str) -> None:
        """Delete a table."""
        self.tables.delete_table(TableName=table)

    def store(self, table: str) -> str:
        """Build the URL of the store in a table; without queues beside it, a broker's URL needs `&sqs=none` too."""
        endpoint = "" if self.url is None else f"&endpoint={quote(self.url, safe=':/')}"
        return f"aws:{table}?region={self.region}{endpoint}"


class Emulator(Account):
    """Emulator of AWS in the folder `root`, which may be killed and started again on its port."""

    def __init__(self, name: str, root: Path, log: Path) -> None:
        super().__init__(name, awsemulators.REGION, "airunner-test")
        self.root = root
        self.log = log
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the emulator, and return when it takes connections; a second start uses the same port."""
        for _ in range(STARTS_MAX):
            if self._served(port := self.port or free_port()):
                self.port, self.url = port, f"http://{awsemulators.LOOPBACK}:{port}"
                return
        raise AssertionError(f"{self.name} does not start: see {self.log}")

    def _served(self, port: int) -> bool:
        command = COMMANDS[self.name](port, self.root)
        with self.log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [*ENDING, *command.words],
                env=command.environ,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        for _ in range(WAITS_MAX):
            # It waits in the kernel for the emulator's end, up to 20 ms, before it asks again.
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                with socket.socket() as tried:
                    if tried.connect_ex((awsemulators.LOOPBACK, port)) == 0:
                        return process.poll() is None
            else:
                return False
        raise AssertionError(f"{self.name} takes no connections: see {self.log}")

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process
        return self._process.pid

    def kill(self) -> None:
        """Kill the emulator at once, and return when it has ended."""
        assert self._process
        self._process.kill()
        self._process.wait()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the emulator while the block runs: its connections stay, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@contextmanager
def emulating(name: str, log: Path) -> Iterator[Emulator]:
    """Run an emulator of its own while the block runs, in a scratch folder; skip the test if it is not installed."""
    require(name)
    with scratch("aws-") as root:
        emulator = Emulator(name, root, log)
        try:
            emulator.start()
            yield emulator
        finally:
            emulator.kill()


class Emulators:
    """Emulators of a test run, each started when the first test asks for it, and kept to the end."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, Account] = {}
        self._ends = ExitStack()
        self._environment = pytest.MonkeyPatch()
        if not os.environ.get(LIVE):
            for name, value in NO_ACCOUNT.items():
                self._environment.setenv(name, value)

    def __call__(self, name: str) -> Account:
        """Return the running emulator of a name, or the real account; skip the test if it is not installed."""
        if name not in self._running:
            self._running[name] = self._account() if name == "live" else self._started(name)
        return self._running[name]

    def _started(self, name: str) -> Emulator:
        return self._ends.enter_context(emulating(name, self._logs / f"{name}.log"))

    @staticmethod
    def _account() -> Account:
        import boto3

        region = boto3.session.Session().region_name
        assert region, "set AWS_REGION for the tests in a real account"
        return Account("live", region, os.environ[LIVE])

    def close(self) -> None:
        """End the emulators."""
        self._ends.close()
        self._environment.undo()
