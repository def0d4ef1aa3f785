"""PEM text of the keys of tokens: where each process looks for it. It is read without `cryptography`, which parses it.

A client that has a token of this key already (`tokensource`) starts a third sooner without that import.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from airunner.certs.home import Home
from airunner.certs.secretfile import MissingFile, read_public, read_secret

PUBLIC_VARIABLE: Final = "JWT_PUBLIC_KEY"
SIGNING_VARIABLE: Final = "JWT_SIGNING_KEY"
_LIKE: Final = re.compile(b"-----BEGIN")  # PEM


def read_verifying_pem(environ: Mapping[str, str], home: Home, file: Path | None = None) -> tuple[bytes, str]:
    """Read the PEM text of the broker's public keys, and return its name for errors too. Raises `OperatorError`."""
    read = partial(read_public, what="the token verification key", like=_LIKE)
    return _pem(read, environ, PUBLIC_VARIABLE, home.token_public, file)


def read_signing_pem(environ: Mapping[str, str], home: Home, file: Path | None = None) -> tuple[bytes, str]:
    """Read the PEM text of the key that signs tokens, and return its name for errors too. Raises `OperatorError`."""
    read = partial(read_secret, what="the token signing key", like=_LIKE)
    return _pem(read, environ, SIGNING_VARIABLE, home.token_secret, file)


def find_signing_pem(environ: Mapping[str, str], home: Home) -> tuple[bytes, str] | None:
    """Read the PEM text of the key that signs tokens; None when this machine has none. Raises `OperatorError`."""
    try:
        return read_signing_pem(environ, home)
    except MissingFile:
        if environ.get(SIGNING_VARIABLE):
            raise
        return None


def _pem(
    read: Callable[..., bytes], environ: Mapping[str, str], variable: str, usual: Path, file: Path | None
) -> tuple[bytes, str]:
    """Find PEM text, and its name for errors: in `file`, else in the variable or the file it names, else in `usual`."""
    if file is not None:
        return read(file, if_missing="name a PEM file"), str(file)
    value = environ.get(variable)
    if not value:
        return read(usual), str(usual)
    if "-----BEGIN" in value:  # files that set variables often write a line end as the two characters \n
        return value.replace("\\n", "\n").encode("utf-8", errors="replace"), variable
    return read(Path(value), if_missing=f"{variable} takes PEM text or the path of a PEM file"), value
