"""What a machine is listed for bounds each message, whatever its token opens; what is listed no more may nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from airunner.certs.allowlist import PeerRole
from airunner.certs.principal import Role
from tests.acceptance.holding import NEEDED, example, token
from tests.acceptance.running import RunningBroker, airunner
from tests.acceptance.test_plain_msgpack import Map, Plain

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_changes")]


class Machine(Plain):
    """A peer with keys of its own, which were added to the list, and a token of the owner's with all roles."""

    def __init__(self, door: RunningBroker, name: str, *options: str) -> None:
        self._public, self._secret = zmq.curve_keypair()
        airunner(door.home, "certs", "add", name, "--key", self._public.decode(), *options)
        super().__init__(door, token(door, "owner"))

    def key(self, name: str) -> bytes:
        return {"client.public": self._public, "client.secret": self._secret}.get(name) or super().key(name)


@pytest.fixture(scope="module")
def machines(door: RunningBroker) -> Iterator[dict[PeerRole, Machine]]:
    """One for each role, which has that role only; each keeps one connection."""
    made = {role: Machine(door, f"only-{role}", "--role", role) for role in PeerRole}
    yield made
    for machine in made.values():
        machine.context.destroy(linger=0)


@pytest.mark.parametrize("name", NEEDED)
def test_a_machine_of_the_wrong_role_is_forbidden_each_message(
    machines: dict[PeerRole, Machine], held: Map, name: str
) -> None:
    wrong = PeerRole.CLIENT if NEEDED[name] is Role.WORK else PeerRole.AGENT
    reply = machines[wrong].ask(example(name, held))
    assert (reply["type"], reply["code"]) == ("Refused", "forbidden")
    assert "listed" in reply["message"]


def test_a_machine_of_the_right_role_is_served(machines: dict[PeerRole, Machine], held: Map) -> None:
    updated = machines[PeerRole.AGENT].ask(example("UpdateJob", {**held, "task_token": bytes(32)}))
    assert [one["verdict"] for one in updated["leases"]] == ["lost"]
    assert machines[PeerRole.CLIENT].ask(example("GetJob", held))["type"] == "JobFound"


def test_a_revoked_machine_is_refused_each_message_on_the_connection_that_it_has(
    door: RunningBroker, held: Map
) -> None:
    machine = Machine(door, "revoked", "--role", "agent,client")
    try:
        assert machine.ask(example("GetJob", held))["type"] == "JobFound"
        airunner(door.home, "certs", "revoke", "revoked")
        for name in ("Ping", *NEEDED):
            reply = machine.ask(example(name, held))
            assert (reply["type"], reply["code"]) == ("Refused", "unauthenticated"), name
            assert "allow-list" in reply["message"]
    finally:
        machine.context.destroy(linger=0)
