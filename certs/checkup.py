"""Health check of an installation's keys and token: file modes, mismatched pairs, tokens that expire.

Each key is read by the function that reads it in production, so the check and the product cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, ParamSpec
from urllib.parse import unquote

import jwt
import msgspec

from airunner.certs.allowlist import parse
from airunner.certs.curve import (
    is_brokers_only,
    load_broker_pair,
    load_broker_public,
    load_client_pair,
    load_pair,
    raw_key,
)
from airunner.certs.findings import Finding, Severity
from airunner.certs.home import Home
from airunner.certs.ownership import OTHERS_READ_OR_WRITE, OTHERS_WRITE, home_fault, unsafe_reason
from airunner.certs.principal import Principal
from airunner.certs.queuekeys import load_public, load_secret, public_path, secret_path
from airunner.certs.secretfile import read_public
from airunner.certs.tokenkeys import find_signing_key, load_verifying_keys, thumbprint
from airunner.certs.tokenpem import PUBLIC_VARIABLE
from airunner.certs.tokens import Claims
from airunner.certs.tokensource import TOKEN_VARIABLE, TokenFile
from airunner.certs.tokenverifier import TokenVerifier
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import OperatorError, Unauthenticated

SOON_S: Final = 600.0  # a token that expires sooner gets a note


def check_keys(
    home: Home, environ: Mapping[str, str], now_s: float, *, token: str | None = None, token_file: Path | None = None
) -> Iterator[Finding]:
    """Check every key in `home`, and the token to present at `now_s` (Unix seconds). No secret is shown."""
    if reason := home_fault(home):
        yield Finding("home", Severity.BAD, reason)
        return
    if not _is_there(home.certs):
        remedy = "run `airunner certs init`, or `airunner certs import`"
        yield Finding("folder", Severity.BAD, f"{home.certs} does not exist: {remedy}")
        return
    yield _checked("home", _folder, home.root)
    for what, folder in (("hooks", home.hooks), ("agent's folder", home.agent), ("broker's folder", home.store.parent)):
        if _is_there(folder):
            yield _checked(what, _folder, folder)
    yield _checked("folder", _folder, home.certs, OTHERS_READ_OR_WRITE)
    yield _checked("broker", _broker, home)
    yield _checked("this machine", _client, home)
    if _is_there(home.allowed_clients):
        yield _checked("allow-list", _allow_list, home)
    for secret in _in(home.clients, "*.secret"):
        yield _checked(f"machine {secret.stem}", _pair, home, secret)
    yield _checked("token keys", _token_keys, environ, home)
    yield _checked("token", _token, environ, home, now_s, token, token_file)
    for queue in sorted({unquote(path.stem) for path in _in(home.queue_keys, "*.*")}):
        yield _checked(f"queue {queue}", _queue, home, queue)


_Result = tuple[Severity, str]
_P = ParamSpec("_P")


def _checked(what: str, check: Callable[_P, _Result], *arguments: _P.args, **named: _P.kwargs) -> Finding:
    try:
        severity, message = check(*arguments, **named)
    except (OperatorError, Unauthenticated) as error:
        severity, message = Severity.BAD, error.message
    except OSError as error:  # a folder that this user may not enter
        severity, message = Severity.BAD, f"{error.filename}: {error.strerror}"
    return Finding(what, severity, message)


def _folder(folder: Path, forbidden: int = OTHERS_WRITE) -> _Result:
    """Check the folder's permissions: a user who may write in a folder can replace the files in it."""
    reason = unsafe_reason(folder, forbidden)
    return (Severity.BAD, reason) if reason else (Severity.GOOD, str(folder))


def _broker(home: Home) -> _Result:
    if home.broker_secret.exists():
        load_broker_pair(home)
        return Severity.GOOD, "its key pair is here: a broker can run on this home"
    load_broker_public(home)
    return Severity.GOOD, "its public key is here"


def _client(home: Home) -> _Result:
    if is_brokers_only(home):
        return Severity.FAIR, "it has no key pair: a broker of a fleet can run on this home, and no agent or client"
    public = load_client_pair(home).public
    if home.allowed_clients.exists():
        listed, _ = parse(read_public(home.allowed_clients, "the allow-list"))
        entry = listed.get(raw_key(public))
        if entry is None:
            return Severity.FAIR, "its key is not on the allow-list here: run `airunner certs add NAME --key KEY`"
        return Severity.GOOD, f"its key pair is here, and listed as {entry.name} ({','.join(sorted(entry.roles))})"
    return Severity.GOOD, "its key pair is here"


def _allow_list(home: Home) -> _Result:
    entries, complaints = parse(read_public(home.allowed_clients, "the allow-list"))
    if complaints:
        lines = "; ".join(f"line {number}: {why}" for number, why in complaints[:3])
        more = f"; and {len(complaints) - 3} more" if len(complaints) > 3 else ""  # noqa: PLR2004 - as above
        return Severity.BAD, f"{home.allowed_clients} has invalid lines, which are ignored: {lines}{more}"
    return Severity.GOOD, f"{len(entries)} machines"


def _pair(home: Home, secret: Path) -> _Result:
    name = secret.stem
    again = f"run `airunner certs revoke {name}`, then `airunner certs add {name}`, which makes a new pair"
    pair = load_pair(secret.with_suffix(".public"), secret, f"{name}'s", if_mismatched=again)
    listed = parse(read_public(home.allowed_clients, "the allow-list"))[0] if home.allowed_clients.exists() else {}
    entry = listed.get(raw_key(pair.public))
    if entry is None or entry.name != name:
        return Severity.FAIR, f"its keys are not on the allow-list: `airunner certs revoke {name}` removes them"
    return Severity.GOOD, "its key pair is here: `airunner certs export` can export it"


def _token_keys(environ: Mapping[str, str], home: Home) -> _Result:
    signing = find_signing_key(environ, home)
    if not home.token_public.exists() and signing is None and not environ.get(PUBLIC_VARIABLE):
        return Severity.FAIR, "the home has none: tokens must come from elsewhere, and a broker needs JWT_PUBLIC_KEY"
    verifying = [thumbprint(key) for key in load_verifying_keys(environ, home)]
    known = f"a broker here trusts {len(verifying)} key{'s' if len(verifying) > 1 else ''} ({', '.join(verifying)})"
    if signing is None:
        return Severity.GOOD, f"{known}; there is no key here to sign tokens with"
    name = thumbprint(signing.public_key())
    if name not in verifying:
        return Severity.BAD, f"tokens are signed here with {name}, which a broker here does not trust: {known}"
    return Severity.GOOD, f"{known}; tokens are signed here with {name}"


def _token(environ: Mapping[str, str], home: Home, now_s: float, explicit: str | None, file: Path | None) -> _Result:
    given = explicit or environ.get(TOKEN_VARIABLE, "")
    token = TokenFile(file).token_at(now_s) if file is not None else given.strip().encode()
    if not token:
        if find_signing_key(environ, home) is None:
            return Severity.FAIR, f"none is set: set {TOKEN_VARIABLE}, or use --token or --token-file"
        return Severity.GOOD, "none is set, and none is needed: one can be signed here"
    if not home.token_public.exists() and not environ.get(PUBLIC_VARIABLE):
        principal, doubt = _unverified(token), "; only the broker can verify it"
        if principal.expires_s <= now_s:
            return Severity.BAD, f"the token of {principal.subject} has expired: get a new one"
    else:
        principal, doubt = TokenVerifier(load_verifying_keys(environ, home)).verify(token, now_s), ""
    left_s = principal.expires_s - now_s
    who = f"{principal.subject} of tenant {principal.tenant}, {','.join(sorted(principal.roles))}"
    if left_s < SOON_S:
        return Severity.FAIR, f"{who}; it expires in {left_s:.0f} s{doubt}"
    return Severity.GOOD, f"{who}; it expires in {left_s / 3_600:.1f} h{doubt}"


def _unverified(token: bytes) -> Principal:
    """Return the token's principal without verifying its signature. Raises `OperatorError`: it is not a token."""
    try:
        claims = msgspec.json.decode(jwt.PyJWS().decode(token, options={"verify_signature": False}), type=Claims)
    except (jwt.InvalidTokenError, RecursionError, *UNDECODABLE) as error:
        raise OperatorError(
            "this is not a token of airunner: run `airunner token` on the machine with the signing key"
        ) from error
    return Principal(claims.sub, claims.tenant, claims.roles, claims.exp)


def _queue(home: Home, queue: str) -> _Result:
    secret, public = secret_path(home, queue), public_path(home, queue)
    if not secret.exists():
        load_public(public, queue)
        return Severity.GOOD, "its public key is here: secrets can be set"
    if not public.exists():
        load_secret(home, queue)
        return Severity.GOOD, "its secret key is here: agents can open its secrets"
    again = f"move the public key away and run `airunner certs queue-key {queue}`"
    load_pair(public, secret, f"queue {queue}'s", if_mismatched=again)
    return Severity.GOOD, "its key pair is here: secrets can be set, and agents can open them"


def _in(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) if _is_there(folder) else []


def _is_there(path: Path) -> bool:
    """Return whether the path exists; False if this user may not look, which the checks of its folders report."""
    try:
        return path.exists()
    except OSError:
        return False
