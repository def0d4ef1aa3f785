"""Identity of a broker in a fleet: an id of its own, which its home keeps, and where other machines reach it.

A broker that is started again in its home is the same broker: it finds its row in the store, and owns its jobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Final

from airunner.certs.secretfile import create, read_secret
from airunner.protocol.errors import OperatorError
from airunner.transport.endpoints import Address, split_endpoint

ID_FILE: Final = "id"
ID_BYTES: Final = 6  # random: enough that no two of a fleet's brokers ever have the same id
FLEET_BYTES: Final = 16  # of the hash of the fleet's public key
_ID: Final = re.compile(rb"[0-9a-f]{12}\n?")
_EVERYWHERE: Final = ("*", "0.0.0.0", "::")  # noqa: S104 - hosts at which a broker may listen and nobody can connect


def broker_id(folder: Path, random_bytes: Callable[[int], bytes]) -> str:
    """Return the id of the broker whose home has this folder; the first time, it is drawn.

    Raises `OperatorError`: the file cannot be read or written, or is no id.
    """
    path = folder / ID_FILE
    create(path, random_bytes(ID_BYTES).hex().encode() + b"\n")
    found = read_secret(path, "broker's id")
    if not _ID.fullmatch(found):
        raise OperatorError(f"{path} has no broker's id: remove it, and the broker makes another one")
    return found.decode().strip()


def fleet_of(public_key: bytes) -> str:
    """Hash the public key that all brokers of a fleet share."""
    return blake2b(public_key, digest_size=FLEET_BYTES).hexdigest()


def advertised(endpoint: str, host: str | None) -> str:
    """Return the endpoint at which other machines reach a socket: with `host`, if --advertise names one.

    Raises `OperatorError`: the socket listens on all addresses, and no host is named.
    """
    address = split_endpoint(endpoint)
    if host is not None:
        return f"tcp://{Address(host, address.port)}"
    if address.host in _EVERYWHERE:
        raise OperatorError(
            f"--listen {endpoint}: other brokers have to know at which address to reach this one: name it with "
            "--advertise HOST"
        )
    return endpoint
