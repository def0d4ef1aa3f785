"""Home folder of an installation: the path of each of its files.

```
$AIRUNNER_HOME  (default ~/.airunner)
├── certs/                 keys; all 0600, made by `airunner certs init`
│   ├── broker.public      Z85     clients pin it
│   ├── broker.secret      Z85
│   ├── client.public      Z85     this machine's key, as agent or client
│   ├── client.secret      Z85
│   ├── allowed-clients            the public keys that the broker accepts
│   ├── clients/                   key pairs made here for other machines
│   ├── queues/                    the keys that queues' secrets are sealed with
│   ├── token.public.pem   ES256   the broker verifies tokens with it
│   └── token.secret.pem   ES256   tokens are signed with it
├── broker/airunner.db             the store
├── agent/                         spools, mirrors and workspaces
└── hooks/                         programs that agents run around each job
```

This module computes paths only and never touches the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from airunner.protocol.errors import OperatorError


class Home(Struct, frozen=True):
    """The folder layout below one absolute `root`."""

    root: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Home:
        """Return the home at `$AIRUNNER_HOME`, or at `~/.airunner` when that is not set.

        Raises `OperatorError` when neither the variable nor the user's home folder is known.
        """
        try:
            root = Path(environ.get("AIRUNNER_HOME") or "~/.airunner").expanduser()
        except RuntimeError as error:
            raise OperatorError("this user has no home folder: set AIRUNNER_HOME to the folder to use") from error
        return cls(root.absolute())  # stays the same when the working directory changes

    @property
    def certs(self) -> Path:
        """The folder of all keys."""
        return self.root / "certs"

    @property
    def broker_public(self) -> Path:
        """The broker's CURVE public key, which clients pin."""
        return self.certs / "broker.public"

    @property
    def broker_secret(self) -> Path:
        """The broker's CURVE secret key."""
        return self.certs / "broker.secret"

    @property
    def client_public(self) -> Path:
        """The CURVE public key that identifies this machine to the broker."""
        return self.certs / "client.public"

    @property
    def client_secret(self) -> Path:
        """The secret key of this machine, as agent or client."""
        return self.certs / "client.secret"

    @property
    def allowed_clients(self) -> Path:
        """The allow-list; `certs/allowlist.py` describes its format."""
        return self.certs / "allowed-clients"

    @property
    def clients(self) -> Path:
        """Key pairs that were made here for other machines, kept until they are revoked."""
        return self.certs / "clients"

    @property
    def queue_keys(self) -> Path:
        """Queue keys, which seal the queues' secrets; `certs/queuekeys.py` names the files."""
        return self.certs / "queues"

    @property
    def token_public(self) -> Path:
        """The ES256 key that tokens are verified with, PEM."""
        return self.certs / "token.public.pem"

    @property
    def token_secret(self) -> Path:
        """The ES256 key that tokens are signed with, PEM."""
        return self.certs / "token.secret.pem"

    @property
    def hooks(self) -> Path:
        """Programs that agents run around each job."""
        return self.root / "hooks"

    @property
    def store(self) -> Path:
        """The broker's default store."""
        return self.root / "broker" / "airunner.db"

    @property
    def agent(self) -> Path:
        """The agent's spools, mirrors and workspaces."""
        return self.root / "agent"
