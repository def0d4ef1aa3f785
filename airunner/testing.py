"""Clusters for tests: `cluster()` starts a real broker and a real agent, with a home, keys and ports of their own.

```python
from airunner.testing import cluster

with cluster() as running, running.sync_client() as client:
    assert client.wait(client.submit(command="true")).exit_status == 0
```

Broker and agent end with the block, and also if this process is killed. In pytest, the fixture `airunner_cluster` is
such a cluster; it is started once in a session.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from airunner.client.client import Client
    from airunner.sync import Client as SyncClient

__all__ = ["Cluster", "cluster"]

SLOTS: Final = 4
ADDRESSES: Final = ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", "127.0.0.1:0", "off")  # free ports, and no web server
OURS: Final = ("AIRUNNER_", "JWT_")  # prefixes of variables that point to another cluster


class Cluster(Struct, frozen=True):
    """Running cluster: its home, and the broker's endpoint."""

    home: Path
    broker: str

    @property
    def environ(self) -> dict[str, str]:
        """Environment variables with which `airunner` commands and `Client()` use this cluster."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        return {**environ, "AIRUNNER_HOME": str(self.home), "AIRUNNER_BROKER": self.broker}

    def client(self) -> Client:
        """Make an asynchronous client."""
        from airunner.client.client import Client

        return Client(self.broker, home=self.home)

    def sync_client(self) -> SyncClient:
        """Make a blocking client."""
        from airunner.sync import Client

        return Client(self.broker, home=self.home)


@contextmanager
def cluster(
    *,
    slots: int = SLOTS,
    queues: Sequence[str] = ("default",),
    tags: Mapping[str, str] | None = None,
    home: str | Path | None = None,
) -> Generator[Cluster]:
    """Start a broker and an agent, and stop them after the block.

    The agent has `slots` and `tags`, and serves `queues`. All files are in `home`, by default a temporary folder, which
    is removed. Raises `OperatorError`: it did not start.

    >>> with cluster(queues=["ci", "nightly"], tags={"gpu": "none"}) as running, running.sync_client() as client:
    ...     print(client.wait(client.submit(command="true", queue="ci", require={"gpu": "none"})).state)
    COMPLETED
    """
    from airunner.certs.home import Home
    from airunner.certs.init import init
    from airunner.certs.secretfile import make_folder
    from airunner.client.localcluster import State
    from airunner.cluster import STOP_S, start

    with _folder(home) as root:
        state = State(root)
        init(Home(state.home))
        make_folder(state.folder)
        environ = Cluster(state.home, "").environ | {
            "AIRUNNER_QUEUE": shlex.join(queues),
            "AIRUNNER_TAG": shlex.join(f"{name}={value}" for name, value in (tags or {}).items()),
        }
        parent, alive = os.pipe()
        with os.fdopen(alive, "wb") as held:  # the cluster ends when it is closed
            with os.fdopen(parent):
                running, supervisor = start(state, ADDRESSES, slots, environ, parent)
            try:
                yield Cluster(state.home, running.broker)
            finally:
                held.close()
                supervisor.wait(STOP_S)


@contextmanager
def _folder(home: str | Path | None) -> Generator[Path]:
    """Return the folder `home`, or make a temporary one and remove it afterwards."""
    if home is not None:
        yield Path(home).absolute()
        return
    with tempfile.TemporaryDirectory(prefix="airunner-test-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)
