"""Options of `airunner web` for the login by OpenID Connect. Imports nothing of the extra."""

from __future__ import annotations

from typing import Any


def oidc_settings() -> Any:  # noqa: ANN401 - the settings of the login, or None
    """Make the settings of the login from the options. Raises `OperatorError`: they do not fit together."""
    return None
