"""Machines are let in by name, carried in one file, and let in no more."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import msgspec
import pytest
import zmq

from airunner.certs.allowlist import AllowList, Entry, PeerRole
from airunner.certs.curve import load_broker_public, load_client_pair, raw_key
from airunner.certs.home import Home
from airunner.certs.machines import FORMAT
from airunner.certs.signing import LogSigner
from airunner.protocol.errors import OperatorError
from tests.certs.test_command import run

AGENT = frozenset({PeerRole.AGENT})


def listed(home: Home, public: bytes) -> Entry | None:
    complaints: list[str] = []
    found = AllowList(home.allowed_clients, complaints.append).entry_for(public)
    assert complaints == []
    return found


def carried(broker: Home, name: str = "build-7") -> Path:
    file = broker.root / f"{name}.keys"
    assert run(broker, "certs", "export", name, "--output", str(file)).exit_code == 0
    return file


def test_a_machine_is_added_carried_taken_in_and_let_in(broker: Home, elsewhere: Home) -> None:
    assert run(broker, "certs", "add", "build-7", "--role", "agent", "--tenant", "acme", "--any-queue").exit_code == 0
    result = run(elsewhere, "certs", "import", str(carried(broker)))
    assert "build-7" in result.stdout
    assert listed(broker, load_client_pair(elsewhere).public) == Entry("build-7", AGENT, "acme")
    assert load_broker_public(elsewhere) == load_broker_public(broker)
    assert run(broker, "certs", "revoke", "build-7").exit_code == 0
    assert listed(broker, load_client_pair(elsewhere).public) is None
    assert list(broker.clients.iterdir()) == []


def test_who_verifies_logs_has_the_keys_of_agents_alone_also_of_those_that_were_revoked(
    broker: Home, elsewhere: Home
) -> None:
    run(broker, "certs", "add", "build-7", "--role", "agent", "--any-queue")
    run(broker, "certs", "add", "ada")
    lines = run(broker, "certs", "signers").stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["build-7", "local"]
    run(elsewhere, "certs", "import", str(carried(broker, "ada")))
    assert {*lines} < {*run(elsewhere, "certs", "signers").stdout.splitlines()}
    moved = str(broker.root / "moved")
    with pytest.raises(OperatorError, match="--output FILE"):
        run(broker, "certs", "export", "build-7", "--move")
    run(broker, "certs", "export", "build-7", "--move", "--output", moved)
    assert not list(broker.clients.glob("build-7*"))
    run(elsewhere, "certs", "import", "--force", moved)
    assert run(elsewhere, "certs", "signers").stdout.splitlines() == lines
    assert LogSigner(load_client_pair(elsewhere).secret).public == raw_key(lines[0].split()[0].encode())
    run(broker, "certs", "add", "build-8", "--role", "agent", "--any-queue")
    lines = run(broker, "certs", "signers").stdout.splitlines()
    for name in ("build-7", "build-8"):
        run(broker, "certs", "revoke", name)
    assert run(broker, "certs", "signers").stdout.splitlines() == lines
    assert [line.split()[1] for line in lines] == ["build-7", "build-8", "local"]
    broker.signers.write_text("no key\n")
    with pytest.raises(OperatorError, match="line 1: a key has 40 characters"):
        run(broker, "certs", "signers")


def test_a_key_that_was_taken_off_by_hand_never_comes_back_and_is_revoked_all_the_same(broker: Home) -> None:
    before = broker.allowed_clients.read_bytes()
    run(broker, "certs", "add", "ci")
    stolen = (broker.clients / "ci.public").read_bytes().strip()
    broker.allowed_clients.write_bytes(before)
    run(broker, "certs", "add", "ci")
    assert listed(broker, stolen) is None
    broker.allowed_clients.write_bytes(before)
    assert run(broker, "certs", "revoke", "ci").exit_code == 0
    assert list(broker.clients.iterdir()) == []
    with pytest.raises(OperatorError, match="there is no machine 'ci'"):
        run(broker, "certs", "revoke", "ci")
    run(broker, "certs", "add", "ci")
    broker.allowed_clients.write_bytes(before)
    run(broker, "certs", "add", "ci", "--key", zmq.curve_keypair()[0].decode())
    with pytest.raises(OperatorError, match="not here"):
        run(broker, "certs", "export", "ci")


def test_a_name_that_somebody_has_written_by_hand_leads_to_no_other_file(broker: Home) -> None:
    run(broker, "certs", "add", "a_b")
    public = zmq.curve_keypair()[0].decode()
    with broker.allowed_clients.open("a") as file:
        file.write(f"{public} ../clients/a_b client\n")
    run(broker, "certs", "list")
    run(broker, "certs", "revoke", "../clients/a_b")
    assert listed(broker, public.encode()) is None
    assert len(list(broker.clients.iterdir())) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give folders away")
@pytest.mark.parametrize(
    "words",
    [("init",), ("add", "q"), ("revoke", "local"), ("queue-key", "q"), ("import", "there.keys")],
    ids=lambda words: words[0],
)
def test_root_makes_nothing_in_a_service_users_home(broker: Home, elsewhere: Home, words: tuple[str, ...]) -> None:
    run(broker, "certs", "add", "there")
    file = carried(broker, "there")
    home = elsewhere if words[0] == "import" else broker
    home.root.mkdir(exist_ok=True)
    for place in (home.root, *home.root.rglob("*")):
        os.chown(place, 65_534, -1)
    os.chown(file, 0, -1)
    before = sorted(home.root.rglob("*"))
    with pytest.raises(OperatorError, match=r"belongs to \w+: run this as \w+ \(`sudo -u \w+ \.\.\.`\)$"):
        run(home, "certs", *(str(file) if word == "there.keys" else word for word in words))
    assert sorted(home.root.rglob("*")) == before


def test_a_machine_that_was_carried_is_never_sent_to_init(broker: Home, elsewhere: Home) -> None:
    run(broker, "certs", "add", "build-7")
    file = str(carried(broker))
    for imported, told in ((False, "run `airunner certs init`"), (True, "run this on the broker's machine")):
        if imported:
            run(elsewhere, "certs", "import", file)
        for words in (("list",), ("add", "x"), ("revoke", "x")):
            with pytest.raises(OperatorError, match=f"allow-list .* is missing: {told}"):
                run(elsewhere, "certs", *words)
    with pytest.raises(OperatorError, match=r"not on this machine: run this on the broker's"):
        run(elsewhere, "token", "--subject", "ada")
    elsewhere.client_public.unlink()
    with pytest.raises(OperatorError, match=r"is missing: run `airunner certs import FILE`"):
        load_client_pair(elsewhere)
    elsewhere.client_public.write_bytes(zmq.curve_keypair()[0])
    with pytest.raises(OperatorError, match=r"does not belong to .* `airunner certs import --force FILE`"):
        load_client_pair(elsewhere)
    assert run(elsewhere, "certs", "import", "--force", file).exit_code == 0
    load_client_pair(elsewhere)


def test_the_list_says_which_of_its_lines_let_nobody_in(broker: Home) -> None:
    with broker.allowed_clients.open("a") as file:
        file.write("no key\n" * 25)
    told = run(broker, "certs", "list")
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["local"]
    first, *_, last = told.stderr.splitlines()
    assert first == f"{broker.allowed_clients}:3: a key has 40 characters, not 2; the line is ignored"
    assert last == f"{broker.allowed_clients}: 5 more lines are ignored"


def test_a_machine_may_bring_its_own_key(broker: Home) -> None:
    public = zmq.curve_keypair()[0]
    assert run(broker, "certs", "add", "laptop", "--key", public.decode()).exit_code == 0
    assert listed(broker, public) == Entry("laptop", frozenset({PeerRole.CLIENT}))
    with pytest.raises(OperatorError, match="not here"):
        run(broker, "certs", "export", "laptop")
    with pytest.raises(OperatorError, match="another name"):
        run(broker, "certs", "add", "again", "--key", public.decode())


def test_they_are_listed_for_people_and_for_scripts(broker: Home) -> None:
    run(broker, "certs", "add", "b", "--role", "agent,client", "--queue", "nightly", "--queue", "ci")
    run(broker, "certs", "add", "a", "--tenant", "acme")
    lines = run(broker, "certs", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["a", "b", "local"]
    objects = [json.loads(line) for line in run(broker, "certs", "list", "--json").stdout.splitlines()]
    assert [(one["name"], one["roles"], one["tenant"], one["queues"], one["here"]) for one in objects] == [
        ("a", ["client"], "acme", None, True),
        ("b", ["agent", "client"], None, ["ci", "nightly"], True),
        ("local", ["agent", "client"], None, None, False),
    ]
    assert ["any queue" in line for line in lines] == [True, False, True]
    assert "queue=ci,nightly" in lines[1]
    for line, one in zip(lines, objects, strict=True):
        assert one["fingerprint"] in line


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("add", "local"), "already"),
        (("add", "../x"), "name"),
        (("add", "a b"), "name"),
        (("add", "x", "--role", "root"), "client,agent"),
        (("add", "x", "--tenant", "a b"), "--tenant"),
        (("add", "x", "--key", "short"), "40 characters"),
        (("add", "x", "--role", "agent"), "which queues may x lease from"),
        (("add", "x", "--queue", "a b"), "--queue"),
        (("add", "x", "--role", "agent", "--queue", "ci", "--any-queue"), "not both"),
        (("revoke", "nobody"), "on the allow-list; there is local, see `airunner certs list`"),
        (("revoke", "lcoal"), "did you mean `airunner certs revoke local`"),
        (("export", "nobody"), "certs add"),
    ],
)
def test_what_cannot_be_is_told_in_one_line_and_changes_nothing(broker: Home, words: tuple[str, ...], why: str) -> None:
    before = broker.allowed_clients.read_bytes()
    with pytest.raises(OperatorError, match=why) as refused:
        run(broker, "certs", *words)
    assert "\n" not in refused.value.message
    assert broker.allowed_clients.read_bytes() == before


def carry(**wrong: str) -> bytes:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    keys = {"broker_public": public, "client_public": public, "client_secret": secret}
    return msgspec.json.encode({"format": FORMAT, "name": "x", **keys, **wrong})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[" * 100_000,
        b'{"format": "airunner-machine-1"}',
        carry(format="other"),
        carry(broker_public="x"),
        carry(client_public="x"),
        carry(name="x\x1b]0;t\x07"),
        carry(client_secret=zmq.curve_keypair()[1].decode()),
    ],
)
def test_a_file_that_is_not_one_changes_nothing(elsewhere: Home, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(OperatorError):
        run(elsewhere, "certs", "import", str(file))
    assert not elsewhere.root.exists()


def test_other_keys_are_replaced_only_when_that_is_asked_for(broker: Home, elsewhere: Home) -> None:
    for name in ("one", "two"):
        run(broker, "certs", "add", name)
    file = str(carried(broker, "one"))
    run(elsewhere, "certs", "import", file)
    first = load_client_pair(elsewhere)
    assert run(elsewhere, "certs", "import", file).exit_code == 0, "it is that machine already"
    with pytest.raises(OperatorError, match="already"):
        carried(broker, "one")
    with pytest.raises(OperatorError, match="--force"):
        run(elsewhere, "certs", "import", str(carried(broker, "two")))
    assert load_client_pair(elsewhere) == first
    run(elsewhere, "certs", "import", "--force", str(broker.root / "two.keys"))
    assert load_client_pair(elsewhere) != first
    with pytest.raises(OperatorError, match="broker's home"):
        run(broker, "certs", "import", "--force", str(broker.root / "two.keys"))


@pytest.mark.usefixtures("open_umask")
def test_every_key_is_its_owners_alone_whatever_the_umask(broker: Home, elsewhere: Home) -> None:
    run(broker, "certs", "add", "build-7")
    file = carried(broker)
    run(elsewhere, "certs", "import", str(file))
    run(broker, "certs", "queue-key", "a/b")
    for root in (broker.root, elsewhere.root):
        for path in (root, *root.rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
