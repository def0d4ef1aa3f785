"""Home folder of an installation: the path of each of its files.

```
$AIRUNNER_HOME  (default ~/.airunner)
├── certs/                 keys, 0600; `airunner certs init` makes the files, but not those in the two folders
│   ├── broker.public      Z85     CURVE key of the broker, which agents and clients pin
│   ├── broker.secret      Z85
│   ├── client.public      Z85     CURVE key that identifies this machine, as agent or client
│   ├── client.secret      Z85
│   ├── client.token                the token that this machine's clients last signed, while it is young
│   ├── allowed-clients            the public keys that the broker accepts (`allowlist.py`)
│   ├── clients/                   key pairs made here for other machines, kept until they are revoked
│   ├── signers                    the keys that verify logs, of agents whose secret keys are not here (`signing.py`)
│   ├── queues/                    the keys that queues' secrets are sealed with (`queuekeys.py`)
│   ├── token.public.pem   ES256   the broker verifies tokens with it
│   └── token.secret.pem   ES256   tokens are signed with it
├── broker/airunner.db             the broker's default store
├── agent/                         spools, mirrors and workspaces
└── hooks/                         programs that agents run around each job
```

This module computes paths only and never touches the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from airunner.protocol.errors import OperatorError


class Home:
    """Home folder at the absolute path `root`, and the paths of the files in it, as drawn above."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.certs = root / "certs"
        self.broker_public = self.certs / "broker.public"
        self.broker_secret = self.certs / "broker.secret"
        self.client_public = self.certs / "client.public"
        self.client_secret = self.certs / "client.secret"
        self.client_token = self.certs / "client.token"
        self.allowed_clients = self.certs / "allowed-clients"
        self.clients = self.certs / "clients"
        self.signers = self.certs / "signers"
        self.queue_keys = self.certs / "queues"
        self.token_public = self.certs / "token.public.pem"
        self.token_secret = self.certs / "token.secret.pem"
        self.store = root / "broker" / "airunner.db"
        self.agent = root / "agent"
        self.hooks = root / "hooks"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Home:
        """Return the home at `$AIRUNNER_HOME`, or at `~/.airunner`; raises `OperatorError` when neither is known."""
        try:
            root = Path(environ.get("AIRUNNER_HOME") or "~/.airunner").expanduser()
        except RuntimeError as error:
            raise OperatorError("this user has no home folder: set AIRUNNER_HOME to the folder to use") from error
        return cls(root.absolute())  # stays the same when the working directory changes
