"""The machines of the simulated PostgreSQL, and the brokers' lines to it, with all that can go wrong between them.

A line is a TCP connection: it delivers in order, late or not at all, and either end may learn late that the other is
gone. What has arrived at the server is done there, whatever has become of who sent it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import anyio

from airunner.broker.store.contract import Fenced, StoreAway, StoreUnsure
from airunner.broker.store.rows import JobRow
from airunner.protocol.job import JobState
from airunner.transport.bell import Bell
from tests.simulation.baton import Baton
from tests.simulation.history import Committed, FailedOver
from tests.simulation.machine import Machine, true_s
from tests.simulation.network import KEEPALIVE_S, SimNetwork
from tests.simulation.recording import Recorder
from tests.simulation.shared import Answer, Server, Transaction, Trip

STORE: Final = "store"  # the server's name in `SimNetwork.parted`
LOOK_S: Final = 1.0
IDLE_S: Final = 5.0  # until the server ends a session that has begun a transaction and goes on with nothing
TRIP_S: Final = 0.001  # at the most, one way, on a good day
LAG_S: Final = 0.001  # likewise until the standby has what is in the log
LATER_S: Final = 0.2  # until a segment that was lost is sent again
T = TypeVar("T")


class Session:
    """One connection, as both ends see it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.over = False  # the broker knows that it has ended
        self.gone = False  # the server has ended it
        self.arrived = Bell()
        self.transactions: list[Transaction] = []


class Cluster:
    """The server, the sessions, and what is wrong with them just now."""

    def __init__(self, network: SimNetwork, recorder: Recorder) -> None:
        self.server = Server()
        self.server.on_log = self._log
        self.server.on_commit = self._committed
        self.network = network
        self.up = True
        self.lags = False  # the standby gets nothing
        self.slow: dict[str, float] = {}  # by broker: how long a trip may take, one way
        self.cuts: dict[str, bool] = {}  # by broker: its next commit is cut, before or after it is done
        self._random = network.random
        self._recorder = recorder
        self.rare = recorder.rare
        self.sessions: dict[Session, None] = {}

    # --- lines ----------------------------------------------------------------------------------------

    def line(self, machine: Machine, thread: Baton) -> ClusterLine:
        return ClusterLine(self, machine, thread)

    def send(self, session: Session, act: Callable[[], None], *, to_server: bool) -> None:
        """Carry something over a session; TCP sends it again until it has arrived."""
        ways = (session.machine.name, STORE) if to_server else (STORE, session.machine.name)
        if session.gone if to_server else session.over:
            return
        if ways in self.network.parted:
            self.network.later(LATER_S, partial(self.send, session, act, to_server=to_server))
            return
        delay_s = self._random.random() * self.slow.get(session.machine.name, TRIP_S)
        self.network.later(delay_s, partial(self._arrive, session, act, to_server=to_server))

    def _arrive(self, session: Session, act: Callable[[], None], *, to_server: bool) -> None:
        if not (session.gone if to_server else session.over):
            act()

    def parted(self, machine: Machine) -> bool:
        return not self.network.parted.isdisjoint({(machine.name, STORE), (STORE, machine.name)})

    def hang_up(self, session: Session, *, silently: bool = False) -> None:
        """The broker's end has closed; the server hears of it, at once or by its keepalives."""
        session.over = True
        session.arrived.ring()
        if silently or self.parted(session.machine):
            self.network.later(KEEPALIVE_S, partial(self.end, session))
        else:
            self.send(session, partial(self.end, session), to_server=True)

    def end(self, session: Session) -> None:
        """The server ends a session: its transaction is rolled back, unless it is being committed."""
        session.gone = True
        self.sessions.pop(session, None)
        for transaction in session.transactions:
            self.server.abort(transaction)
        self.network.later(self._random.random() * TRIP_S, partial(self._reset, session))

    def _reset(self, session: Session) -> None:
        """The broker's end is told, or finds out by its keepalives when the way is there again."""
        if self.parted(session.machine):
            self.network.later(LATER_S, partial(self._reset, session))
        else:
            session.over = True
            session.arrived.ring()

    def cut(self, name: str) -> None:
        """Something between the two resets a broker's connection."""
        for session in [one for one in self.sessions if one.machine.name == name]:
            self.end(session)

    def machine_gone(self, machine: Machine, *, silently: bool) -> None:
        """A broker's process has ended."""
        for session in [one for one in self.sessions if one.machine is machine]:
            self.hang_up(session, silently=silently)

    # --- the server -----------------------------------------------------------------------------------

    def _log(self) -> None:
        if not self.lags:
            self.network.later(self._random.random() * LAG_S, self._replicate)

    def _replicate(self) -> None:
        if not self.lags and self.up:
            self.server.replicate()

    def catch_up(self) -> None:
        """The standby is there again."""
        self.lags = False
        self._replicate()

    def crash(self, down_s: float) -> None:
        """The primary is killed, and recovers."""
        self.rare["the server crashed"] += 1
        if self.server.behind:
            self.rare["the server recovered what its standby had not got"] += 1
        self._break_all()
        self.server.crash()
        self.network.later(down_s, self._start)

    def fail_over(self, down_s: float) -> None:
        """The primary is lost; its standby takes its place."""
        self.rare["the server failed over"] += 1
        lost = self.server.behind
        self._break_all()
        place = self.server.fail_over()
        if lost:
            self.rare["a failover lost what nobody was told"] += 1
        self._recorder.add(FailedOver, place=place)
        self.network.later(down_s, self._start)

    def _break_all(self) -> None:
        self.up = False
        for session in list(self.sessions):
            session.transactions.clear()
            self.end(session)

    def _start(self) -> None:
        self.up = True
        self._replicate()

    def heal(self) -> None:
        """Everything works."""
        self.slow.clear()
        self.cuts.clear()
        self.lags = False
        self._replicate()

    def _committed(self, place: int, transaction: Transaction) -> None:
        """Write down what is visible from now on."""
        changes = transaction.changes
        rows: list[tuple[JobRow | None, JobRow]] = [*((None, job) for job in changes.added), *changes.changed]
        running = [(before, job) for before, job in rows if before is not None and before.state == JobState.RUNNING]
        leased = [
            (job.job_id, job.attempt, job.lease_request or b"")
            for before, job in rows
            if job.attempt > (0 if before is None else before.attempt)
        ]
        ended = [
            (before.job_id, before.attempt)
            for before, job in running
            if (job.settled, job.attempt) != (None, before.attempt)
        ]
        ready = [job.job_id for _, job in rows if not job.gate]
        unready = [job.job_id for before, job in rows if job.gate and before is not None and not before.gate]
        self._recorder.add(
            Committed,
            place=place,
            broker=transaction.broker,
            answered=tuple(record.request_id for record in changes.records),
            leased=tuple(leased),
            ended=tuple(ended),
            ready=tuple(ready),
            unready=tuple(unready),
            modes=tuple((queue.queue, str(mode)) for queue, mode in changes.modes.items()),
            opens=transaction.opens,
            adopted=tuple(sorted(transaction.adopted)),
        )


class ClusterLine:
    """A `Line` of one life of a broker; called in its thread."""

    def __init__(self, cluster: Cluster, machine: Machine, thread: Baton) -> None:
        self._cluster = cluster
        self._machine = machine
        self._thread = thread
        self._session = Session(machine)
        self._session.over = self._session.gone = True

    def ask(self, transaction: Transaction, trip: Trip[T], *, ends: bool) -> T:
        return self._thread.wait(partial(self._ask, self._session, transaction, trip, ends=ends))

    def roll_back(self, transaction: Transaction) -> None:
        """It goes before the next trip, and is there before it."""
        if transaction in self._session.transactions:
            self._thread.wait(partial(self._post, partial(self._cluster.server.abort, transaction)))

    def connect(self) -> None:
        self._thread.wait(self.open)

    async def _post(self, act: Callable[[], None]) -> None:
        self._cluster.send(self._session, act, to_server=True)

    async def open(self) -> None:
        """Connect again. Raises `StoreAway`."""
        cluster = self._cluster
        if not self._session.over:
            cluster.hang_up(self._session)
        if cluster.parted(self._machine):
            await anyio.sleep(5.0)  # virtual
        else:
            await anyio.sleep(3 * cluster.slow.get(self._machine.name, TRIP_S))  # virtual
        if cluster.parted(self._machine) or not cluster.up:
            raise StoreAway("it does not answer")
        self._session = Session(self._machine)
        cluster.sessions[self._session] = None

    async def _ask(self, session: Session, transaction: Transaction, trip: Trip[T], *, ends: bool) -> T:
        """Send a trip and wait for its answer; a session that answers nothing for long is given up."""
        answers: list[T | Exception] = []
        away = StoreUnsure if ends else StoreAway
        if session.over:
            raise StoreAway("the connection has ended")
        session.transactions = [one for one in (*session.transactions, transaction) if one.open]
        begin = partial(self._begin, session, transaction, trip, answers, ends=ends)
        self._cluster.send(session, begin, to_server=True)
        unheard_since_s: float | None = None
        while not answers:
            if session.over:
                self._cluster.rare["a commit was unsure"] += ends
                raise away("the connection has ended")
            with anyio.move_on_after(LOOK_S):
                await session.arrived.wait()
            if not self._cluster.parted(self._machine):
                unheard_since_s = None
            elif unheard_since_s is None:
                unheard_since_s = true_s()
            elif true_s() - unheard_since_s > KEEPALIVE_S:
                self._cluster.hang_up(session)
        (answer,) = answers
        if isinstance(answer, Answer) and answer.adopted:
            self._cluster.rare["a broker adopted another's jobs"] += 1
        if isinstance(answer, Fenced):
            self._cluster.rare["a broker that was taken for dead was fenced"] += 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _begin(
        self, session: Session, transaction: Transaction, trip: Trip[T], answers: list[T | Exception], *, ends: bool
    ) -> None:
        """A trip has arrived at the server."""
        cluster = self._cluster
        cut = cluster.cuts.pop(self._machine.name, None) if ends else None
        if cut is False:
            cluster.end(session)
            return

        def heard(answer: T | Exception) -> None:
            answers.append(answer)
            session.arrived.ring()

        def answered(answer: Any) -> None:
            if transaction.open:
                cluster.network.later(IDLE_S, partial(self._end_idle, session, transaction))
            if cut:
                cluster.end(session)
            cluster.send(session, partial(heard, answer), to_server=False)

        cluster.server.run(transaction, trip, answered)

    def _end_idle(self, session: Session, transaction: Transaction) -> None:
        """The server ends a session whose transaction goes on with nothing."""
        if transaction.open and transaction.logged is None:
            self._cluster.rare["an idle transaction was ended"] += 1
            self._cluster.end(session)
