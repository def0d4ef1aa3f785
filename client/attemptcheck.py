"""Attempt check: verifies the events of one attempt against the signatures of its agent. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from airunner.client.logfaults import Entry, Fault, Kind, differences
from airunner.protocol.events import TAG_BYTES, EventBody, LogSigned, UnknownBody
from airunner.protocol.logchain import START, LogChain, statement

Body = EventBody | UnknownBody | None
"""Body of an event; None: it is missing or cannot be read."""
Verify = Callable[[bytes, bytes, bytes], bool]
"""Check of a signature: public key, statement, signature."""


class AttemptCheck:
    """Check of one attempt's events, which its agent has signed."""

    def __init__(self, job_id: str, attempt: int, agent: str, verify: Verify) -> None:
        self.attempt = attempt
        self.agent = agent
        self.signer = b""  # public key of the signatures; empty: there is none
        self.signed = 0  # events that are signed
        self.events = 0
        self.last: LogSigned | None = None  # the last signature that is right
        self.unsigned: list[Fault] = []  # events whose signature is damaged
        self.over = ""  # how the attempt ended, if not by its agent's result: released, expired
        self.running = True
        self._job_id = job_id
        self._verify = verify
        self._head = START
        self._next = 0  # index of the first event that the next signature has the tag of
        self._pending: list[tuple[Entry, bytes]] = []  # with the leaf of each

    @property
    def complete(self) -> bool:
        """Whether the agent has signed the end of the attempt."""
        return self.last is not None and self.last.result is not None

    def add(self, entry: Entry, leaf: bytes, body: Body) -> Iterable[Fault]:
        """Check the next event of the attempt's agent."""
        self.events += 1
        faults: list[Fault] = []
        if self.complete:
            faults.append(entry.fault(Kind.ADDED, "the agent had signed its end"))
        elif isinstance(body, LogSigned):
            faults += self._link(entry, body)
        self._pending.append((entry, leaf))
        return faults

    def _link(self, entry: Entry, body: LogSigned) -> list[Fault]:
        if self.signer not in (b"", body.signer) or not self._verify(
            body.signer, statement(self._job_id, self.attempt, body), body.signature
        ):
            return [entry.fault(Kind.CHANGED, "its signature is wrong")]
        if self.last is not None and body.index <= self.last.index:
            return [entry.fault(Kind.DOUBLED)]
        faults = self._compared(entry, body)
        self._head, self._next = body.head, body.index
        self.signer, self.last = body.signer, body
        self.signed = body.index + 1
        self._pending.clear()
        return faults

    def _compared(self, entry: Entry, body: LogSigned) -> list[Fault]:
        """Compare the events since the last signature with what the next one says of them."""
        expected = [body.tags[at : at + TAG_BYTES] for at in range(0, len(body.tags), TAG_BYTES)]
        found = [pending for pending, _ in self._pending]
        after = (found[0].sequence if found else entry.sequence) - 1
        faults: list[Fault] = []
        without = body.index - len(expected) - self._next  # events whose signature is not there
        if without > 0:
            there = without if len(found) > without else max(0, len(found) - len(expected))
            if there:
                after = found[there - 1].sequence
                why = "the LOG_SIGNED behind them is damaged"
                self.unsigned.append(self._fault(Kind.UNSIGNED, found[0].sequence, after, why))
            if there < without:
                faults.append(self._fault(Kind.MISSING, after + 1, after + without - there))
            found = found[there:]
        faults += differences(expected, found, after)
        if not faults:
            chain = LogChain(self._head)
            chain.add([leaf for _, leaf in self._pending])
            if chain.link().head != body.head:
                faults.append(self._fault(Kind.CHANGED, after + 1, entry.sequence - 1, "at least one of them"))
        return faults

    def _fault(self, kind: Kind, first: int, last: int, why: str = "") -> Fault:
        return Fault(kind, self.attempt, first, last, why)
