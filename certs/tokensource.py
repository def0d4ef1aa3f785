"""Token source: chooses the token that a client or an agent presents with a request.

It is the first of these: the value of `--token`, or the content of `--token-file` (not both); `AIRUNNER_TOKEN`; the
file of `AIRUNNER_TOKEN_FILE`; a token minted here, if the signing key is here, of the tenant `AIRUNNER_TENANT`; no
token, for a broker with `--no-auth`. A file is read again when it has changed; a minted token is short-lived, and
replaced long before it expires. With either a process needs no restart.
A client keeps the token that it has minted, so that the next one on this machine starts sooner.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from airunner.certs.home import Home
from airunner.certs.principal import ALL_ROLES, DEFAULT_TENANT, Role
from airunner.certs.secretfile import read_secret, replace
from airunner.certs.tokenpem import find_signing_pem
from airunner.protocol.caches import EVERY_LABEL
from airunner.protocol.errors import OperatorError
from airunner.protocol.frames import TOKEN_BYTES_MAX

if TYPE_CHECKING:
    from airunner.certs.tokens import TokenSigner

TOKEN_VARIABLE: Final = "AIRUNNER_TOKEN"  # noqa: S105 - the variable's name, not a token
TOKEN_FILE_VARIABLE: Final = "AIRUNNER_TOKEN_FILE"  # noqa: S105 - likewise
TENANT_VARIABLE: Final = "AIRUNNER_TENANT"
_LIKE: Final = re.compile(rb"\A\s*[^\s.]+\.[^\s.]+\.[^\s.]+\s*\Z")  # a JWT: three parts
_EVERY_CACHE: Final = frozenset({EVERY_LABEL})  # who has the signing key has every right
_HASH_BYTES: Final = 32
_KEPT: Final = re.compile(rb"\A[0-9a-f]{64} ")
MINTED_TTL_S: Final = 600.0  # seconds: long enough for a slow request, short enough to be worth little when stolen


def _ignore_report(_: str) -> None:
    """Ignore a report: the caller reads the token only once, and gets the error itself."""


class TokenFile:
    """Token in a file, 0600, that another program renews. While the file cannot be read, the last token is presented.

    `report` is called with one line of text for each problem, once.
    """

    def __init__(self, path: Path, report: Callable[[str], None] = _ignore_report) -> None:
        """Read the token; raises `OperatorError`: the file cannot be read, or holds no token."""
        self._path = path
        self._report = report
        self._complaint = ""
        self._seen: tuple[int, int, int] | None = None
        self._token = b""
        self._read()

    def token_at(self, now_s: float) -> bytes:
        """Return the token to present now."""
        del now_s
        try:
            self._read()
        except OperatorError as error:
            if self._complaint != error.message:  # reported once, not with every request
                self._complaint = error.message
                self._report(f"{error.message}; until this is fixed the last token is presented")
        else:
            self._complaint = ""
        return self._token

    def _read(self) -> None:
        try:
            status = self._path.stat()
        except OSError as error:
            raise OperatorError(f"--token-file {self._path}: {error.strerror}") from error
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            made_by = "`airunner token` prints a token"
            content = read_secret(self._path, "the token's file", if_missing=made_by, like=_LIKE)
            self._token = _checked(content.decode("ascii", errors="replace"), f"--token-file {self._path}")
            self._seen = seen


class KeptToken:
    """Token kept in a file, 0600, by which a client that starts needs no signature, and no import of signing.

    The file names the key, and the subject, tenant and roles of its token, by a hash: another's token is not used.
    """

    def __init__(self, path: Path, pem: bytes, names: Iterable[str]) -> None:
        self._path = path
        what = "\0".join(names).encode()
        self._hash = blake2b(what, key=blake2b(pem).digest(), digest_size=_HASH_BYTES).hexdigest()

    def read(self) -> tuple[bytes, float] | None:
        """Read the token and when it was minted (Unix seconds); None: there is none of this key."""
        try:
            content = read_secret(self._path, "the kept token", like=_KEPT).decode("ascii", errors="replace")
            of, minted_s, token = content.split()
            return (token.encode(), float(minted_s)) if of == self._hash else None
        except (OperatorError, ValueError):
            return None

    def write(self, token: bytes, minted_s: float) -> None:
        """Keep a token; a home that cannot be written keeps none."""
        with suppress(OperatorError):
            replace(self._path, f"{self._hash} {minted_s!r} {token.decode()}\n".encode())


class TokenSource:
    """Token source: a `fixed` token, a token that a signer replaces after half of its lifetime, or no token."""

    def __init__(
        self,
        *,
        fixed: bytes = b"",
        signer: Callable[[], TokenSigner] | None = None,
        subject: str = "local",
        tenant: str = DEFAULT_TENANT,
        roles: Iterable[Role] = ALL_ROLES,
        kept: KeptToken | None = None,
    ) -> None:
        self._signer = None if fixed else signer
        self._subject = subject
        self._tenant = tenant
        self._roles = frozenset(roles)
        self._kept = kept
        found = kept.read() if kept is not None else None
        self._token, self._minted_s = found or (fixed, float("-inf"))

    def token_at(self, now_s: float) -> bytes:
        """Return the token to present at `now_s` (Unix seconds); empty: none."""
        # When the clock was set back, the last token is from the future: it is replaced as well.
        if self._signer and not self._minted_s <= now_s < self._minted_s + MINTED_TTL_S / 2:
            minted = self._signer().mint(
                subject=self._subject,
                tenant=self._tenant,
                roles=self._roles,
                caches=_EVERY_CACHE,
                ttl_s=MINTED_TTL_S,
                now_s=now_s,
            )
            self._token = minted.encode()
            self._minted_s = now_s
            if self._kept is not None:
                self._kept.write(self._token, now_s)
        return self._token


class _Claims(Struct):
    tenant: str = DEFAULT_TENANT


def tenant_of(token: bytes) -> str:
    """Read the tenant in a token, which only the broker can verify; without a token it is the default one."""
    part = token.partition(b".")[2].partition(b".")[0]
    try:
        return msgspec.json.decode(urlsafe_b64decode(part + b"=" * (-len(part) % 4)), type=_Claims).tenant
    except (ValueError, msgspec.DecodeError):
        return DEFAULT_TENANT


def token_source(
    environ: Mapping[str, str],
    home: Home,
    *,
    explicit: str | None = None,
    file: Path | None = None,
    subject: str = "local",
    roles: Iterable[Role] = ALL_ROLES,
    report: Callable[[str], None] = _ignore_report,
    keep: bool = False,
) -> TokenSource | TokenFile:
    """Choose the token source of one process; `explicit` is the value of `--token`, `file` that of `--token-file`.

    `keep`: a minted token is kept in the home for the next process. `report` is called with later problems of the
    file. Raises `OperatorError`: both options are given, the given token cannot be a token, or the signing key exists
    and is not usable.
    """
    named = environ.get(TOKEN_FILE_VARIABLE) or None
    if file is not None and explicit is not None:  # an option may have read its variable, which yields
        if str(file) == named:
            file = None
        elif explicit == environ.get(TOKEN_VARIABLE):
            explicit = None
        else:
            raise OperatorError("use --token or --token-file, not both")
    if file is None and explicit is None and named is not None and not environ.get(TOKEN_VARIABLE, "").strip():
        file = Path(named)
    if file is not None:
        return TokenFile(file, report)
    given = explicit if explicit is not None else environ.get(TOKEN_VARIABLE, "")
    if explicit is not None or given.strip():
        of_the_variable = explicit in {None, environ.get(TOKEN_VARIABLE)}  # the option may have read the variable
        return TokenSource(fixed=_checked(given, TOKEN_VARIABLE if of_the_variable else "--token"))
    found = find_signing_pem(environ, home)
    if found is None:
        return TokenSource()
    tenant = environ.get(TENANT_VARIABLE) or DEFAULT_TENANT
    kept = KeptToken(home.client_token, found[0], (subject, tenant, *sorted(roles), *_EVERY_CACHE)) if keep else None
    signer = cache(partial(_signer, *found))
    if kept is None or kept.read() is None:
        signer()  # now, so that a key that is not usable is refused before anything is sent
    return TokenSource(signer=signer, subject=subject, tenant=tenant, roles=roles, kept=kept)


def _signer(pem: bytes, where: str) -> TokenSigner:
    # Imported here: a process that has a token signs none.
    from airunner.certs.tokenkeys import parse_signing_key
    from airunner.certs.tokens import TokenSigner

    return TokenSigner(parse_signing_key(pem, where))


def _checked(given: str, where: str) -> bytes:
    """Check that `given` can be sent as a token; the broker checks whether the token is valid."""
    token = given.strip()
    if not token.isascii() or not token.isprintable() or not _LIKE.search(token.encode()):
        raise OperatorError(f"{where} holds no token: `airunner token --subject NAME` prints one")
    if len(token) > TOKEN_BYTES_MAX:
        raise OperatorError(f"{where} is longer than {TOKEN_BYTES_MAX} bytes: that is no token")
    return token.encode()
