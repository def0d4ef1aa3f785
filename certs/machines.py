"""Machines on the allow-list: `airunner certs add`, `list`, `revoke`, `export` and `import`.

Guarantees
- A secret key has mode 0600 from its first byte: here, in the exported file, and on the machine that imports it.
- `add` refuses a name or key that is listed already; `import` replaces other keys only with --force.
- A key pair whose name is not on the list may have been exported and then revoked by hand: `add` makes a new pair.
- An import checks the whole file before it writes anything, so a damaged file changes nothing.
- A function that cannot do its work raises `OperatorError`, which says what to do instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from shlex import quote
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from airunner.certs.allowlist import Entry, PeerRole, complaint_lines, parse, with_entry, without_entry
from airunner.certs.curve import (
    is_carried,
    load_broker_pair,
    load_broker_public,
    load_pair,
    load_secret,
    new_secret,
    public_of,
    raw_key,
)
from airunner.certs.fleet import FLEET_FORMAT, CarriedFleet, export_fleet, fleet_name, import_fleet
from airunner.certs.home import Home
from airunner.certs.ownership import refuse_foreign_owner
from airunner.certs.principal import QueueScope
from airunner.certs.secretfile import RUN_INIT, locked, make_folder, read_public, read_secret, replace
from airunner.certs.signing import LogSigner, add_signers, parse_signers, signer_lines, signers
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import NAME_EXPECTED, fits_name

NAMED_MAX: Final = 8  # machines that an error about a wrong name lists
FORMAT: Final = "airunner-machine-1"
_LIKE: Final = re.compile(b'"(client|broker)_secret"')
FINGERPRINT_BYTES: Final = 8  # bytes of a hash of a public key, by which people tell keys apart
SIGNERS_CHARS_MAX: Final = 32_768  # of the signers in an exported file: 190 agents with names of the longest
_Text = Annotated[str, Meta(max_length=4_096)]


class Machine(Struct, frozen=True, kw_only=True):
    """One machine of the allow-list; `here`: its secret key is on this computer and can be exported."""

    name: str
    roles: tuple[PeerRole, ...]
    tenant: str | None
    queues: tuple[str, ...] | None
    fingerprint: str
    here: bool


class Carried(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Content of an exported file, which carries one machine's keys."""

    format: str
    name: _Text
    broker_public: _Text
    client_public: _Text
    client_secret: _Text
    signers: Annotated[str, Meta(max_length=SIGNERS_CHARS_MAX)] = ""  # as lines of `certs/signers`


class _Kind(Struct, frozen=True):
    """Kind of an exported file."""

    format: _Text


def fits_machine(name: str) -> bool:
    """Return whether a machine name is valid: its keys are stored in files of that name."""
    return fits_name(name) and "/" not in name


def add(
    home: Home,
    name: str,
    roles: Iterable[PeerRole],
    tenant: str | None,
    public: bytes | None,
    queues: QueueScope = None,
) -> Machine:
    """Add a machine to the allow-list: with its public key `public` (Z85), or with a pair made here, to be exported.

    The machine may lease from, submit to and read `queues` only; None: every queue. A broker of the fleet has the key
    of this home's broker.
    """
    roles = frozenset(roles)
    if PeerRole.BROKER in roles:
        if len(roles) > 1 or tenant is not None or queues is not None:
            raise OperatorError("--role broker: a broker has no other role, and no --tenant or --queue")
        public = public or load_broker_pair(home).public
    if not fits_machine(name):
        raise OperatorError(f"the machine's name {name!r}: expected {NAME_EXPECTED}, without /")
    if tenant is not None and not fits_name(tenant):
        raise OperatorError(f"--tenant {tenant!r}: expected {NAME_EXPECTED}")
    if public is not None:
        _check_key(public, "--key")
    refuse_foreign_owner(home.root, home.certs)
    _listed(home)  # raises when there is no list yet
    with locked(home.certs):
        listed = _listed(home)
        if any(entry.name == name for entry in parse(listed)[0].values()):
            raise OperatorError(f"{name} is on the allow-list already; `airunner certs revoke {name}` removes it")
        _remove_pair(home, name)
        if public is None:
            public = _new_pair(home, name)
        if raw_key(public) in parse(listed)[0]:
            raise OperatorError("this key is on the allow-list already, under another name: see `airunner certs list`")
        entry = Entry(name, roles, tenant, queues)
        replace(home.allowed_clients, with_entry(listed, public, entry))
    return _machine(home, raw_key(public), entry)


def machines(home: Home) -> list[Machine]:
    """List the machines on the allow-list, sorted by name."""
    entries, _ = parse(_listed(home))
    return sorted((_machine(home, *each) for each in entries.items()), key=lambda machine: machine.name)


def ignored(home: Home) -> list[str]:
    """Return a line of text for each invalid line of the allow-list."""
    return complaint_lines(home.allowed_clients, parse(_listed(home))[1])


def revoke(home: Home, name: str) -> None:
    """Remove a machine from the allow-list, and its key pair if it was made here; one of the two may be missing.

    A running broker refuses the machine's next request. The logs that the machine has signed can still be verified.
    """
    refuse_foreign_owner(home.root, home.certs)
    _listed(home)
    with locked(home.certs):
        listed = _listed(home)
        shorter = without_entry(listed, name)
        if any(entry.name == name and PeerRole.AGENT in entry.roles for entry in parse(listed)[0].values()):
            _keep_signer(home, name)
        if shorter != listed:
            replace(home.allowed_clients, shorter)  # first: after an interruption here the machine is already refused
        if not _remove_pair(home, name) and shorter == listed:
            raise OperatorError(f"there is no machine {name!r} on the allow-list; {_others(home, 'revoke', name)}")


def _others(home: Home, command: str, name: str) -> str:
    """Return the machine whose name is nearest to a wrong one, in a command, or the command that lists all."""
    known = machines(home) if home.allowed_clients.exists() else ()
    here = [machine.name for machine in known if machine.here or command == "revoke"]
    if near := get_close_matches(name, here, 1):
        return f"did you mean `airunner certs {command} {near[0]}`?"
    named = f"{', '.join(here[:NAMED_MAX])}{'…' if here[NAMED_MAX:] else ''}" if here else "none"
    return f"there {'are' if here[1:] else 'is'} {named}, see `airunner certs list`"


def export(home: Home, name: str) -> bytes:
    """Return the content of a file with the keys of the machine `name`, whose key pair is here, or of the fleet."""
    if home.broker_secret.exists() and home.allowed_clients.exists() and fleet_name(home) == name:
        return export_fleet(home, name)
    if not fits_machine(name) or not _secret(home, name).exists():
        remedy = f"`airunner certs add {quote(name)}` makes new ones"
        raise OperatorError(f"the keys of {name!r} are not here; {_others(home, 'export', name)}, and {remedy}")
    pair = load_pair(_public(home, name), _secret(home, name), f"{name}'s")
    carried = Carried(
        format=FORMAT,
        name=name,
        broker_public=load_broker_public(home).decode(),
        client_public=pair.public.decode(),
        client_secret=pair.secret.decode(),
        signers=_carried_signers(home),
    )
    return msgspec.json.format(msgspec.json.encode(carried)) + b"\n"


def forget(home: Home, name: str) -> None:
    """Remove the key pair of a machine, which was exported; the key that verifies its logs stays."""
    with locked(home.certs):
        _keep_signer(home, name)
        _remove_pair(home, name)


def _carried_signers(home: Home) -> str:
    """Return the lines of the signers that this home knows, as many as fit into an exported file."""
    lines = signer_lines(signers(home))
    return lines if len(lines) <= SIGNERS_CHARS_MAX else lines[: lines.rindex("\n", 0, SIGNERS_CHARS_MAX) + 1]


def import_keys(home: Home, path: Path, *, force: bool) -> str:
    """Import the keys in the file at `path`, and return the machine's name; only with `force` replace other keys."""
    made_by = "`airunner certs export NAME` makes it"
    content = read_secret(path, "the machine's file", if_missing=made_by, like=_LIKE)
    try:
        kind = msgspec.json.decode(content, type=_Kind)
        if kind.format == FLEET_FORMAT:
            return import_fleet(home, path, msgspec.json.decode(content, type=CarriedFleet), force=force)
        carried = msgspec.json.decode(content, type=Carried)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OperatorError(f"{path} was not made by `airunner certs export`: {str(error)[:200]}") from error
    if carried.format != FORMAT:
        raise OperatorError(f"{path} was made by another version of airunner: use the same version on both machines")
    if not fits_machine(carried.name):
        raise OperatorError(f"{path} was not made by `airunner certs export`: {carried.name!r} is not a machine name")
    for key in (carried.broker_public, carried.client_public, carried.client_secret):
        _check_key(key.encode(), str(path))
    if public_of(carried.client_secret.encode()) != carried.client_public.encode():
        raise OperatorError(f"{path} is damaged, its two keys do not belong together: export the machine again")
    known = parse_signers(carried.signers, str(path))
    wanted = {
        home.client_secret: carried.client_secret,
        home.client_public: carried.client_public,
        home.broker_public: carried.broker_public,
    }
    refuse_foreign_owner(home.root, home.certs)
    make_folder(home.certs)
    with locked(home.certs):
        if home.broker_secret.exists():
            raise OperatorError(f"{home.root} is a broker's home: set AIRUNNER_HOME to another folder to import keys")
        contents = {place: f"{key}\n".encode() for place, key in wanted.items()}
        other = [place for place, content in contents.items() if place.exists() and place.read_bytes() != content]
        if other and not force:
            raise OperatorError(f"{other[0]} holds another key; --force replaces it")
        for place, content in contents.items():
            replace(place, content)
        add_signers(home, known)
    return carried.name


def _new_pair(home: Home, name: str) -> bytes:
    """Make a key pair on disk, and return the public key."""
    secret = new_secret()
    public = public_of(secret)
    make_folder(home.clients)
    replace(_secret(home, name), secret + b"\n")
    replace(_public(home, name), public + b"\n")
    return public


def _keep_signer(home: Home, name: str) -> None:
    """Keep the key that verifies a machine's logs, if its pair was made here. The list must be locked."""
    if fits_machine(name) and (path := _secret(home, name)).exists():
        add_signers(home, {LogSigner(load_secret(path, f"{name}'s")).public: name})


def _remove_pair(home: Home, name: str) -> bool:
    """Remove the key pair; return whether a file of it existed. The list must be locked."""
    if not fits_machine(name):
        return False  # only a line that was written by hand can have such a name
    there = [path for path in (_secret(home, name), _public(home, name)) if path.exists()]
    for path in there:
        path.unlink()
    return bool(there)


def _machine(home: Home, key: bytes, entry: Entry) -> Machine:
    digest = blake2b(key, digest_size=FINGERPRINT_BYTES).hexdigest()
    return Machine(
        name=entry.name,
        roles=tuple(sorted(entry.roles)),
        tenant=entry.tenant,
        queues=None if entry.queues is None else tuple(sorted(entry.queues)),
        fingerprint=":".join(digest[at : at + 4] for at in range(0, len(digest), 4)),
        here=fits_machine(entry.name) and _secret(home, entry.name).exists(),
    )


def _listed(home: Home) -> bytes:
    remedy = "run this on the broker's machine, which has the list" if is_carried(home) else RUN_INIT
    return read_public(home.allowed_clients, "the allow-list", if_missing=remedy)


def _check_key(text: bytes, where: str) -> None:
    try:
        raw_key(text)
    except ValueError as error:
        raise OperatorError(f"{where}: {error}") from error


def _secret(home: Home, name: str) -> Path:
    return home.clients / f"{name}.secret"


def _public(home: Home, name: str) -> Path:
    return home.clients / f"{name}.public"
