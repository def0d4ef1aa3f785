"""What a machine is listed for bounds each message, whatever its token opens; what is listed no more may nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from airunner.certs.allowlist import PeerRole
from airunner.certs.principal import Role
from tests.acceptance.holding import NEEDED, dequeue, example, token
from tests.acceptance.running import RunningBroker, airunner
from tests.acceptance.test_plain_msgpack import Map, Plain

BY_TASK_TOKEN = {"UpdateJob", "PublishJobEvents", "CompleteJob", "ReleaseJob"}  # it proves the lease
LISTS = {"ListJobs", "ListQueues", "ListSecrets", "ListAgents"}

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
    made = {role: Machine(door, f"only-{role}", "--role", role, "--queue", "default") for role in PeerRole}
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
    with Machine(door, "revoked", "--role", "agent,client", "--any-queue") as machine:
        assert machine.ask(example("GetJob", held))["type"] == "JobFound"
        airunner(door.home, "certs", "revoke", "revoked")
        for name in ("Ping", *NEEDED):
            reply = machine.ask(example(name, held))
            assert (reply["type"], reply["code"]) == ("Refused", "unauthenticated"), name
            assert "allow-list" in reply["message"]


@pytest.fixture(scope="module")
def bound(door: RunningBroker) -> Iterator[Machine]:
    """A machine of both roles that is bound to another queue than the owner's jobs are in."""
    with Machine(door, "bound", "--role", "agent,client", "--queue", "ci") as machine:
        yield machine


@pytest.mark.parametrize("name", sorted(set(NEEDED) - BY_TASK_TOKEN - LISTS))
def test_a_machine_bound_to_a_queue_can_neither_use_nor_see_another(bound: Machine, held: Map, name: str) -> None:
    reply = bound.ask(example(name, held))
    assert (reply["type"], reply["code"]) in {("Refused", "forbidden"), ("Refused", "not-found")}


def test_a_machine_bound_to_a_queue_lists_nothing_of_another(bound: Machine) -> None:
    assert bound.ask({"type": "ListJobs"})["jobs"] == []
    assert bound.ask({"type": "ListQueues"})["queues"] == []
    assert bound.ask({"type": "ListSecrets"})["secrets"] == []


def test_a_token_bound_to_a_queue_opens_no_other_on_any_machine(door: RunningBroker, held: Map) -> None:
    words = airunner(door.home, "token", "--subject", "ci", "--queue", "ci").strip()
    with Plain(door, words) as peer:
        assert peer.ask(dequeue("default", bytes(32)))["code"] == "forbidden"
        assert peer.ask(example("GetJob", held))["code"] == "not-found"
