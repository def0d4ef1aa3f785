"""Who is on the allow-list at this moment may connect, and nobody else."""

from __future__ import annotations

import os
import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from airunner.certs import allowlist
from airunner.certs.allowlist import (
    COMPLAINTS_MAX,
    SETTLED_S,
    AllowList,
    AllowListUnreadable,
    Entry,
    PeerRole,
    parse,
    with_entry,
    without_entry,
)
from airunner.certs.home import Home
from airunner.certs.secretfile import make_folder, read_public, replace

ALICE, BOB, CAROL = (zmq.curve_keypair()[0] for _ in range(3))
AGENT = frozenset({PeerRole.AGENT})


def test_a_listed_key_is_known_by_its_text_and_by_its_bytes_and_no_other_is(home: Home) -> None:
    allow, _ = allow_list(home, ALICE + b" build-7 agent client\n")
    for key in (ALICE, z85.decode(ALICE)):
        assert allow.entry_for(key) == Entry("build-7", frozenset({PeerRole.CLIENT, PeerRole.AGENT}))
    for key in (BOB, z85.decode(BOB), b"", b"x" * 40, b"\xff" * 40, ALICE[:-1], ALICE + b"0"):
        assert allow.entry_for(key) is None


@contextmanager
def without_descriptors() -> Generator[None]:
    """This process can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.close(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_descriptor_to_read_it_with_the_list_holds_until_it_changes(home: Home) -> None:
    allow, complaints = allow_list(home, ALICE + b" build-7 agent\n")
    with without_descriptors(), pytest.raises(AllowListUnreadable):
        allow.entry_for(ALICE)
    assert allow.entry_for(ALICE)
    with without_descriptors():
        assert allow.entry_for(ALICE)
        assert allow.entry_for(BOB) is None
    replace(home.allowed_clients, b"# nobody\n")
    with without_descriptors(), pytest.raises(AllowListUnreadable):
        allow.entry_for(ALICE)
    assert allow.entry_for(ALICE) is None
    assert len(complaints) == 2


def test_a_change_of_the_same_size_at_the_same_instant_counts_too(home: Home) -> None:
    allow, _ = allow_list(home, ALICE + b" machine agent\n")
    assert allow.entry_for(ALICE)
    stamp = home.allowed_clients.stat()
    with home.allowed_clients.open("r+b") as file:  # in place: the inode stays
        file.write(BOB)
    os.utime(home.allowed_clients, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert allow.entry_for(ALICE) is None
    assert allow.entry_for(BOB)


class Reading:
    """The allow-list on a file system whose clock stands still, and how often its file is read and opened."""

    def __init__(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.reads = self.opens = 0
        stamp, self._open = allowlist._stamp_of(str(home.allowed_clients)), os.open
        monkeypatch.setattr(allowlist, "read_public", self._read)
        monkeypatch.setattr(os, "open", self._opened)
        monkeypatch.setattr(allowlist, "_stamp_of", lambda _: stamp)
        self.list = AllowList(home.allowed_clients, print, lambda: self.now_s)

    def _read(self, path: Path, what: str) -> bytes:
        self.reads += 1
        return read_public(path, what)

    def _opened(self, path: Path | str, flags: int) -> int:
        self.opens += 1
        return self._open(path, flags)


def test_the_list_is_read_when_it_changes_and_not_each_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_list(home, ALICE + b" machine agent\n")
    reading = Reading(home, monkeypatch)
    for reading.now_s in (0.0, SETTLED_S, SETTLED_S, 10 * SETTLED_S):
        assert reading.list.entry_for(ALICE)
    assert (reading.reads, reading.opens) == (1, 2), "read when it was first seen, and compared once it had settled"
    monkeypatch.undo()
    replace(home.allowed_clients, b"# nobody\n")
    assert reading.list.entry_for(ALICE) is None


def test_a_rewrite_within_one_tick_of_the_clock_counts_too(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_list(home, ALICE + b" machine agent\n")
    reading = Reading(home, monkeypatch)
    for reading.now_s in (0.0, SETTLED_S - 1):
        assert reading.list.entry_for(ALICE)
    home.allowed_clients.write_bytes(BOB + b" machine agent\n")
    reading.now_s = 100 * SETTLED_S
    assert reading.list.entry_for(ALICE) is None


def test_comments_and_blanks_are_passed_over_and_what_a_key_is_bound_to_stands_in_any_order(home: Home) -> None:
    ignored = b"# a comment\n#\n#" + BOB + b" b agent\n\n  \t\n"
    allow, reports = allow_list(home, ignored + b"  " + ALICE + b"   a\ttenant=acme queue=nightly,ci agent  \r\n")
    assert allow.entry_for(ALICE) == Entry("a", AGENT, "acme", frozenset({"ci", "nightly"}))
    assert allow.entry_for(BOB) is None
    assert reports == []


@given(st.binary(min_size=32, max_size=32))
def test_no_key_begins_with_a_hash(key: bytes) -> None:
    assert not z85.encode(key).startswith(b"#")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"tooshort a agent", "a key has 40 characters, not 8"),
        (b"~" * 40 + b" a agent", "the key is not Z85"),
        (BOB, "a line is: PUBLIC-KEY NAME ROLE... [tenant=TENANT] [queue=QUEUE,...]"),
        (BOB + b" a", "a line is: PUBLIC-KEY NAME ROLE... [tenant=TENANT] [queue=QUEUE,...]"),
        (BOB + b" a tenant=acme", "a line is: PUBLIC-KEY NAME ROLE... [tenant=TENANT] [queue=QUEUE,...]"),
        (BOB + b" a agent tenant=", "a line is: PUBLIC-KEY NAME ROLE... [tenant=TENANT] [queue=QUEUE,...]"),
        (BOB + b" a agent queue=", "a line is: PUBLIC-KEY NAME ROLE... [tenant=TENANT] [queue=QUEUE,...]"),
        (BOB + b" a agent queue=ci,,x", "a line is: PUBLIC-KEY NAME ROLE... [tenant=TENANT] [queue=QUEUE,...]"),
        (BOB + b" a agent queue=a queue=b", "a line is: PUBLIC-KEY NAME ROLE... [tenant=TENANT] [queue=QUEUE,...]"),
        (BOB + b" a agent until=noon", "a line is: PUBLIC-KEY NAME ROLE... [tenant=TENANT] [queue=QUEUE,...]"),
        (BOB + b" a root", "the roles are: client, agent, broker"),
        (BOB + b" a agent # why", "the roles are: client, agent, broker"),
        (BOB + b" \xff agent", "a name has at most 128 printable ASCII characters"),
        (BOB + b" \x1b[2J agent", "a name has at most 128 printable ASCII characters"),
        (BOB + b" " + b"n" * 129 + b" agent", "a name has at most 128 printable ASCII characters"),
        (ALICE + b" b agent", "the key is already listed, as a"),
    ],
)
def test_a_malformed_line_lets_nobody_in_and_the_others_stand(line: bytes, why: str, home: Home) -> None:
    allow, reports = allow_list(home, b"\n".join([ALICE + b" a agent", line, CAROL + b" c client", b""]))
    assert allow.entry_for(BOB) is None
    assert allow.entry_for(ALICE) == Entry("a", AGENT)
    assert allow.entry_for(CAROL) == Entry("c", frozenset({PeerRole.CLIENT}))
    assert reports == [f"{home.allowed_clients}:2: {why}; the line is ignored"]


def test_reports_of_a_file_that_is_something_else_are_bounded(home: Home) -> None:
    allow, reports = allow_list(home, b"nonsense\n" * 5_000)
    assert allow.entry_for(ALICE) is None
    assert len(reports) == COMPLAINTS_MAX + 1
    assert reports[-1].endswith("4980 more lines are ignored")


@pytest.mark.parametrize("breakage", ["missing", "open to others", "a folder"])
def test_a_file_that_cannot_be_read_lets_nobody_in_until_it_can_be(breakage: str, home: Home) -> None:
    content = ALICE + b" a agent\n"
    allow, reports = allow_list(home, content)
    assert allow.entry_for(ALICE)
    if breakage == "open to others":
        home.allowed_clients.chmod(0o666)
    else:
        home.allowed_clients.unlink()
    if breakage == "a folder":
        home.allowed_clients.mkdir()
    for _ in range(3):
        with pytest.raises(AllowListUnreadable):
            allow.entry_for(ALICE)
    assert len(reports) == 1  # said once, not at every handshake
    if home.allowed_clients.is_dir():
        home.allowed_clients.rmdir()
    replace(home.allowed_clients, content)
    assert allow.entry_for(ALICE) == Entry("a", AGENT)


keys = st.binary(min_size=32, max_size=32)
names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)
roles = st.frozensets(st.sampled_from(PeerRole), min_size=1)
bounds = st.sampled_from(["acme", "ci", "x/y"])


@given(
    st.dictionaries(
        keys,
        st.builds(Entry, names, roles, st.none() | bounds, st.none() | st.frozensets(bounds, min_size=1)),
        max_size=5,
    )
)
def test_what_is_written_is_read_back(listed: dict[bytes, Entry]) -> None:
    content = b""
    for key, entry in listed.items():
        content = with_entry(content.rstrip(b"\n"), z85.encode(key), entry)
    assert parse(content) == (listed, [])


@given(st.binary(max_size=300))
def test_no_file_can_make_the_reader_fall_over(content: bytes) -> None:
    entries, complaints = parse(content)
    assert len(entries) + len(complaints) <= content.count(b"\n") + 1


def allow_list(home: Home, content: bytes) -> tuple[AllowList, list[str]]:
    """The list of such a file, and what it reports."""
    make_folder(home.certs)
    replace(home.allowed_clients, content)
    reports: list[str] = []
    return AllowList(home.allowed_clients, reports.append), reports


def test_an_entry_is_taken_off_by_its_whole_name_and_all_else_stays() -> None:
    content = b"# a list of ours, a comment with build\n"
    for key, name in ((ALICE, "build-7"), (BOB, "old-build")):
        content = with_entry(content, key, Entry(name, AGENT))
    assert without_entry(with_entry(content, CAROL, Entry("build", AGENT)), "build") == content
    assert without_entry(content, "nobody") == content
