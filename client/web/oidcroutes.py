"""Routes of the login by OpenID Connect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.routing import BaseRoute

ROUTES: Final[Sequence[BaseRoute]] = ()
