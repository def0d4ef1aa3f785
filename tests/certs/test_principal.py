"""A principal may do what its roles say and nothing more."""

from __future__ import annotations

import pytest

from airunner.certs.principal import ALL_ROLES, ANONYMOUS, DEFAULT_TENANT, Principal, Role, parse_roles
from airunner.protocol.errors import Forbidden, OperatorError


@pytest.mark.parametrize("role", Role)
def test_a_role_gives_itself_and_no_other(role: Role) -> None:
    principal = Principal("ada", "team", frozenset({role}), 1.0)
    principal.require(role)
    for other in ALL_ROLES - {role}:
        with pytest.raises(Forbidden, match=rf"needs the role {other}, which the token of ada"):
            principal.require(other)


def test_anonymous_may_do_everything_in_the_default_tenant() -> None:
    assert ANONYMOUS.roles == ALL_ROLES
    assert ANONYMOUS.tenant == DEFAULT_TENANT


def test_roles_are_a_list_with_commas() -> None:
    assert parse_roles("submit, read") == {Role.SUBMIT, Role.READ}
    assert parse_roles("admin") == {Role.ADMIN}


@pytest.mark.parametrize("text", ["", "root", "submit,,read", "submit;read", "SUBMIT"])
def test_a_role_that_does_not_exist_is_named_with_those_that_do(text: str) -> None:
    with pytest.raises(OperatorError, match=r"use one or more of submit,read,work,admin"):
        parse_roles(text)
