"""Routes of a log in a page: its lines, its live stream, its terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.routing import BaseRoute

ROUTES: Final[Sequence[BaseRoute]] = ()
