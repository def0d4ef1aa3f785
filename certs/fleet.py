"""Keys of a fleet: its brokers have the same key pair, and accept one another by it, with the role `broker`.

```
first broker    airunner certs add fleet --role broker        lists its own key
                airunner certs export fleet --output FILE     key pair, allow-list, and the key that verifies tokens
other brokers   airunner certs import FILE
```

Agents and clients pin that one key, so they need nothing but the endpoints of all brokers. The key that signs tokens
stays on the first broker's machine, and so do the keys of other machines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from airunner.certs.allowlist import PeerRole, parse
from airunner.certs.curve import key_in, load_broker_pair, public_of, raw_key
from airunner.certs.home import Home
from airunner.certs.ownership import refuse_foreign_owner
from airunner.certs.secretfile import locked, make_folder, read_public, replace
from airunner.certs.tokenkeys import parse_public_keys
from airunner.protocol.errors import OperatorError

FLEET_FORMAT: Final = "airunner-fleet-1"


class CarriedFleet(Struct, frozen=True, kw_only=True):
    """Content of an exported file, which carries what a further broker of the fleet needs."""

    format: str
    name: str
    broker_public: str
    broker_secret: str
    allowed_clients: str
    token_public: str


def fleet_name(home: Home) -> str | None:
    """Return the name by which the allow-list has the fleet's key with the role `broker`; None: it has not."""
    public = raw_key(load_broker_pair(home).public)
    entry = parse(read_public(home.allowed_clients, "the allow-list"))[0].get(public)
    return entry.name if entry is not None and PeerRole.BROKER in entry.roles else None


def export_fleet(home: Home, name: str) -> bytes:
    """Return the content of a file for the other brokers of the fleet, whose key the allow-list has as `name`."""
    pair = load_broker_pair(home)
    tokens = home.token_public
    token_public = read_public(tokens, "the token verification key") if tokens.exists() else b""
    carried = CarriedFleet(
        format=FLEET_FORMAT,
        name=name,
        broker_public=pair.public.decode(),
        broker_secret=pair.secret.decode(),
        allowed_clients=_text(read_public(home.allowed_clients, "the allow-list"), home.allowed_clients),
        token_public=_text(token_public, tokens),
    )
    return msgspec.json.format(msgspec.json.encode(carried)) + b"\n"


def import_fleet(home: Home, path: Path, carried: CarriedFleet, *, force: bool) -> str:
    """Import what the file at `path` carries, and return the fleet's name; only with `force` replace other content.

    The allow-list is replaced as a whole, so a further import brings it up to date.
    """
    public, secret = carried.broker_public.encode(), carried.broker_secret.encode()
    listed = carried.allowed_clients.encode()
    for key in (carried.broker_public, carried.broker_secret):
        key_in(key.encode(), path, "the fleet's key in")
    entry = parse(listed)[0].get(raw_key(public))
    if public_of(secret) != public or entry is None or PeerRole.BROKER not in entry.roles:
        raise OperatorError(f"{path} is damaged, its keys and its allow-list do not match: export the fleet again")
    if carried.token_public:
        parse_public_keys(carried.token_public.encode(), str(path))
    contents = {home.broker_secret: secret + b"\n", home.broker_public: public + b"\n", home.allowed_clients: listed}
    if carried.token_public:
        contents[home.token_public] = carried.token_public.encode()
    refuse_foreign_owner(home.root, home.certs)
    make_folder(home.certs)
    with locked(home.certs):
        other = [place for place, content in contents.items() if place.exists() and place.read_bytes() != content]
        if other and not force:
            raise OperatorError(f"{other[0]} differs from what {path} holds; --force replaces it")
        for place, content in contents.items():
            replace(place, content)
    return entry.name


def _text(content: bytes, path: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise OperatorError(f"{path} is damaged: it is not text") from error
