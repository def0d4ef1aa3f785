"""`airunner certs init` and `airunner token`: keys and tokens from the command line.

Laws
- What a command is asked for is all that stands on stdout, so `TOKEN=$(airunner token …)` works; whatever else
  there is to say goes to stderr.
- No secret is printed, save the token that was asked for.
- Errors are raised; the composition root prints their line and exits with their code.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Final

import typer

from airunner.protocol.errors import OperatorError

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TTL: Final = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)  # nine digits: the bound is TokenSigner's to tell

certs_app = typer.Typer(help="The keys of this installation.", no_args_is_help=True)


@certs_app.command("init")
def init_command() -> None:
    """Make whatever is missing: CURVE keys, the allow-list, the pair for tokens. What is there stays.

    They lie in $AIRUNNER_HOME/certs, and only you may read them.
    """
    from airunner.certs.home import Home
    from airunner.certs.init import init

    home = Home.from_environment(os.environ)
    report = init(home)
    for path in sorted(report.made):
        print(f"made {path}")
    if not report.made:
        print(f"nothing to make: all {len(report.kept)} files are in {home.certs}")


def token_command(
    subject: Annotated[str, typer.Option(help="Whom the token stands for: a person, a machine, a pipeline.")],
    ttl: Annotated[str, typer.Option(help="How long it is valid: 90s, 15m, 1h, 7d.")] = "1h",
    tenant: Annotated[str, typer.Option(help="Whose jobs and queues it opens.")] = "default",
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may do, of submit,read,work,admin; with commas, or repeated.",
            show_default="submit,read,work,admin",
        ),
    ] = None,
) -> None:
    """Print a token, signed with JWT_SIGNING_KEY or the home's key.

    Present it with --token or AIRUNNER_TOKEN. It cannot be taken back: keep its life short.
    """
    from airunner.certs.edges import SYSTEM
    from airunner.certs.home import Home
    from airunner.certs.principal import ALL_ROLES, parse_roles
    from airunner.certs.tokenkeys import load_signing_key
    from airunner.certs.tokens import TokenSigner

    ttl_s = parse_ttl_s(ttl)
    roles = parse_roles(",".join(role)) if role is not None else ALL_ROLES
    signer = TokenSigner(load_signing_key(os.environ, Home.from_environment(os.environ)))
    now_s = SYSTEM.wall_ms() / 1_000
    print(signer.mint(subject=subject, tenant=tenant, roles=roles, ttl_s=ttl_s, now_s=now_s))


def parse_ttl_s(text: str) -> int:
    """The seconds in `90s`, `15m`, `1h` or `7d`.

    Raises `OperatorError`: written in another way.
    """
    match = _TTL.fullmatch(text)
    if match is None:
        raise OperatorError(f"--ttl {text!r}: give a number and a unit, as in 90s, 15m, 1h or 7d")
    return int(match[1]) * _UNITS_S[match[2]]
