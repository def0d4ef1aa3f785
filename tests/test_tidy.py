"""The house's own rules, each shown to catch what it is against; and its pages, held to what they speak of."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE_LINES_MAX = 400
TEST_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
PARTS = ("protocol", "certs", "transport", "broker", "agent", "client")
MAY_IMPORT = {part: {*PARTS[: min(at, 3)], part} for at, part in enumerate(PARTS)}  # the first three are for all
INNER = (("broker/store", "sqlite"), ("broker/store", "postgres"), ("client", "cli"), ("client", "web"))
BESIDE = {("client/web/", "cli")}  # pages and the HTTP API have the words and forms of the command line
CHOOSERS = {"broker/store/open.py"}  # which engine serves a URL
# Of agent/, from the ground up: each imports only itself and those before it.
FLOORS = [
    "flag",
    "reports",
    "launcher",
    "workspace",
    "checkout",
    "output",
    "artifacts",
    "returning",
    "caches",
    "jobsocket",
    "saves",
    "plan",
    "leases",
    "attempt",
    "home",
    "metrics",
    "agent",
    "running",
    "command",
]
# What the launcher's processes run: each import is paid for by every keeper.
CHILD = ("agent/launcher/child/", "transport/timers.py")
CHILD_MAY_IMPORT = {*sys.stdlib_module_names, "msgpack", "ptyprocess"}
IMPURE = {"anyio", "asyncio", "datetime", "os", "random", "secrets", "select", "signal", "socket", "subprocess"}
IMPURE |= {"threading", "time", "trio", "zmq", "pathlib", "tempfile", "logging", "apsw"}
DECIDING = ("airunner.broker.lifecycle", "airunner.protocol.states", "airunner.protocol.job")
STATES = re.compile(r"\b(SCHEDULED|RUNNING|COMPLETED|FAILED|CANCELLED)\b")
ENGINES = ("broker/store/sqlite/", "broker/store/postgres/")
ENGINE_LINES_MAX = {"broker/store/sqlite/": 930, "broker/store/postgres/": 2_374}  # with connections
# A pooler or a standby loses the state of a session; the others are slow, or end what they must not (decision 0046).
SHUNNED = re.compile(
    r"\b(LISTEN|UNLISTEN|NOTIFY|COPY|DISCARD|(?i:savepoint|trigger))\b|statement_timeout|pg_notify|advisory"
)
ASYNCIO_USERS = {"transport/reader.py", "transport/workthread.py"}  # for the broker's process: always on asyncio
PICTURES = (".png", ".webp")
BANNED_MODULES = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
BANNED_WORDS = re.compile(r"Manager|Handler|Processor|Helper|Util")
STATEMENTS = re.compile(r"\b(SELECT .+ FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE (TABLE|INDEX))\b", re.DOTALL)
SLEEPERS = {("time", "sleep"), ("anyio", "sleep"), ("trio", "sleep"), ("asyncio", "sleep")}
# Written in pieces, so that this file does not hold them.
MACHINE_PATHS = re.compile("/(?:" + "|".join(("wo" + "rk", "ro" + "ot", "far" + "m")) + r")/\w")
AMERICAN = re.compile("cancel" + r"ed\b")

# Words that make a newcomer stop, or hide what they search for, and what to say instead; names of things included.
WORDS = {
    r"whoever|somebody|anybody": "the sender, the agent, another process: name it",
    r"anew": "again",
    r"tells": "shows, reports, lists",
    r"beats it": "overrides it",
    r"put off": "defer, postpone",
    r"told late": "delayed",
    r"may be asked once": "idempotent",
    r"kept for what": "minimum free disk, reserve",
    r"so much was": "account for `size` bytes",
    r"for one in|lambda one": "for job, lease, batch in",
    r"knocks?|knocking|knocked": "connects, unattributed request",
    r"doomed": "pending deletion",
    r"unless flag": "cancelled by flag",
    r"take_in|take_place": "import_keys, lock_home",
    r"fault_of": "unsafe reason",
    r"tenure": "held lease",
    r"_told": "name what it returns: a line, a row, a message",
}
UNWORDY = {name: re.compile(rf"(?<![a-z])(?:{name.replace(' ', '[ _]')})(?![a-z])", re.IGNORECASE) for name in WORDS}
TESTS_NAMED = re.compile(r"<!--.*?-->", re.DOTALL)  # comments of a page, with the tests that hold what it says
PAGES = tuple(
    f"docs/{page}.md"
    for page in (
        "ARCHITECTURE",
        "AWS",
        "GLOSSARY",
        "JOBS",
        "METRICS",
        "OPERATING",
        "PERFORMANCE",
        "PROTOCOL",
        "SCALING",
        "SECURITY",
        "WEB",
    )
)
WORDY = (*(f"{part}/" for part in PARTS), "airunner/", "scripts/", "bench/", "deploy/", "README.md", *PAGES)

Rule = Callable[[str, str], Iterator[str]]


@lru_cache(maxsize=1)
def nodes(source: str) -> tuple[ast.AST, ...]:
    """The nodes of a module's syntax tree, kept for one file only: all of them keep the garbage collector busy."""
    return tuple(ast.walk(ast.parse(source)))


def imported(source: str) -> Iterator[str]:
    """Every module that is imported, wherever the import stands; relative ones begin with a dot."""
    for node in nodes(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            if (node.module or "").split(".")[0] == "airunner":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_are_short(path: str, source: str) -> Iterator[str]:
    lines = source.count("\n")
    if lines > (TEST_LINES_MAX if path.startswith("tests/") else FILE_LINES_MAX):
        yield f"{lines} lines"


def functions_are_short(_: str, source: str) -> Iterator[str]:
    for node in nodes(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # Without its signature: that of a command is the table of its options.
            lines = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.name} has {lines} lines"


def imports_run_one_way(path: str, source: str) -> Iterator[str]:
    part = path.split("/", 1)[0]
    if part not in PARTS:
        return
    for module in imported(source):
        words = module.split(".")
        if module.startswith("."):
            yield f"relative import {module}"
        elif words[0] in PARTS:
            yield f"{module} is imported as a top-level module"
        elif words[0] == "airunner" and words[1:] and words[1] not in {*MAY_IMPORT[part], "__version__"}:
            yield f"{part} imports {module}"  # `from airunner import x` is judged by its names


def inner_folders_are_imported_by_nobody_around_them(path: str, source: str) -> Iterator[str]:
    for outer, inner in INNER:
        if path.startswith(f"{outer}/") and not path.startswith(f"{outer}/{inner}/") and path not in CHOOSERS:
            if any(path.startswith(folder) and inner == beside for folder, beside in BESIDE):
                continue
            inside = f"airunner.{outer}.{inner}".replace("/", ".")
            yield from (f"imports {name}" for name in imported(source) if f"{name}.".startswith(f"{inside}."))


def agent_imports_downwards(path: str, source: str) -> Iterator[str]:
    if not path.startswith("agent/") or path == "agent/__init__.py":
        return
    floor = path.split("/")[1].removesuffix(".py")
    if floor not in FLOORS:
        yield f"{floor} has no floor in agent/"
        return
    above = FLOORS[FLOORS.index(floor) + 1 :]
    for module in imported(source):
        if module.startswith("airunner.agent.") and module.split(".")[2] in above:
            yield f"{floor} imports {module}"


def launchers_child_imports_the_standard_library(path: str, source: str) -> Iterator[str]:
    if path.startswith(CHILD):
        for module in imported(source):
            ours = module.startswith(("airunner.agent.launcher.child", "airunner.transport.timers"))
            if not ours and module.split(".")[0] not in CHILD_MAY_IMPORT:
                yield f"imports {module}"


def what_is_pure_imports_no_edge(path: str, source: str) -> Iterator[str]:
    if path.startswith(("protocol/", "broker/lifecycle/")):
        yield from (f"imports {name}" for name in imported(source) if name.split(".")[0] in IMPURE)


def engines_decide_nothing(path: str, source: str) -> Iterator[str]:
    if path.startswith(ENGINES):
        yield from (f"imports {name}" for name in imported(source) if name.startswith(DECIDING))
        yield from (f"knows the state {state[0]}" for state in STATES.finditer(source))


def postgres_is_used_through_any_pooler(path: str, source: str) -> Iterator[str]:
    if path.startswith("broker/store/postgres/"):
        prose = {id(node.value) for node in nodes(source) if isinstance(node, ast.Expr)}
        for node in nodes(source):
            match node:
                case ast.Constant(value=str(text)) if id(node) not in prose:
                    yield from (f"line {node.lineno} uses {found[0]}" for found in SHUNNED.finditer(text))
                    if re.match(r"\s*(SET|RESET|PREPARE|CREATE TEMP)\b", text):
                        yield f"line {node.lineno} changes the session"
                case ast.Attribute(attr="copy" | "transaction" | "notifies" as name):  # psycopg's own
                    yield f"line {node.lineno} uses {name}"


def only_anyio_waits(path: str, source: str) -> Iterator[str]:
    if not path.startswith("tests/") and path not in ASYNCIO_USERS:
        yield from (f"imports {name}" for name in imported(source) if name.split(".")[0] in {"asyncio", "trio"})


def names_say_what_a_thing_is(path: str, source: str) -> Iterator[str]:
    if Path(path).stem in BANNED_MODULES:
        yield f"a module called {Path(path).stem}"
    for node in nodes(source):
        if isinstance(node, ast.ClassDef) and BANNED_WORDS.search(node.name):
            yield f"a class called {node.name}"


def sql_stands_in_the_store(path: str, source: str) -> Iterator[str]:
    if path.startswith((*ENGINES, "bench/reference.py", "bench/store.py", "tests/")):  # these measure bare databases
        return
    for node in nodes(source):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and STATEMENTS.search(node.value):
            yield f"line {node.lineno} has SQL"


def no_test_sleeps(path: str, source: str) -> Iterator[str]:
    if not path.startswith("tests/"):
        return
    lines = source.splitlines()
    for node in nodes(source):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name)) if (module, name) in SLEEPERS:
                if "# virtual" not in lines[node.lineno - 1]:  # on a clock that jumps nobody waits
                    yield f"line {node.lineno} sleeps"


def cancelled_has_two_ls(_: str, source: str) -> Iterator[str]:
    yield from (f"{found[0]!r}" for found in AMERICAN.finditer(source))


def no_path_of_a_machine(_: str, source: str) -> Iterator[str]:
    yield from (f"{found[0]!r}" for found in MACHINE_PATHS.finditer(source))


def words_are_plain(path: str, source: str) -> Iterator[str]:
    if path.startswith(WORDY):
        shown = TESTS_NAMED.sub(lambda named: "\n" * named[0].count("\n"), source)
        for words, pattern in UNWORDY.items():
            for found in pattern.finditer(shown):
                line = shown.count("\n", 0, found.start()) + 1
                yield f"line {line} says {found[0]!r}; say instead: {WORDS[words]}"


RULES: tuple[Rule, ...] = (
    files_are_short,
    functions_are_short,
    imports_run_one_way,
    agent_imports_downwards,
    launchers_child_imports_the_standard_library,
    inner_folders_are_imported_by_nobody_around_them,
    what_is_pure_imports_no_edge,
    engines_decide_nothing,
    postgres_is_used_through_any_pooler,
    only_anyio_waits,
    names_say_what_a_thing_is,
    sql_stands_in_the_store,
    no_test_sleeps,
)
TEXT_RULES: tuple[Rule, ...] = (cancelled_has_two_ls, no_path_of_a_machine, words_are_plain)  # of pages too

OFFENDERS: tuple[tuple[Rule, str, str], ...] = (
    (files_are_short, "broker/x.py", "x = 1\n" * (FILE_LINES_MAX + 1)),
    (functions_are_short, "broker/x.py", "def f():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX + 1)),
    (imports_run_one_way, "broker/x.py", "from airunner.agent.attempt.slot import Slot"),
    (imports_run_one_way, "agent/x.py", "def f():\n    import airunner.client.client"),
    (imports_run_one_way, "client/x.py", "if TYPE_CHECKING:\n    from airunner import broker"),
    (imports_run_one_way, "certs/x.py", "from airunner.transport.ports import SYSTEM"),
    (imports_run_one_way, "protocol/x.py", "from airunner.certs.home import Home"),
    (imports_run_one_way, "broker/x.py", "from . import ledger"),
    (imports_run_one_way, "broker/x.py", "from protocol.job import Job"),
    (inner_folders_are_imported_by_nobody_around_them, "client/x.py", "from airunner.client.cli.cast import Cast"),
    (inner_folders_are_imported_by_nobody_around_them, "client/cli/x.py", "import airunner.client.web.app"),
    (inner_folders_are_imported_by_nobody_around_them, "broker/store/x.py", "from airunner.broker.store import sqlite"),
    (agent_imports_downwards, "agent/output/x.py", "from airunner.agent.leases.heldlease import HeldLease"),
    (agent_imports_downwards, "agent/launcher/x.py", "from airunner.agent import plan"),
    (agent_imports_downwards, "agent/another.py", ""),
    (launchers_child_imports_the_standard_library, CHILD[0] + "x.py", "import anyio"),
    (launchers_child_imports_the_standard_library, CHILD[0] + "x.py", "from airunner.agent.launcher import mark"),
    (what_is_pure_imports_no_edge, "protocol/x.py", "import time"),
    (what_is_pure_imports_no_edge, "protocol/x.py", "from os import urandom"),
    (what_is_pure_imports_no_edge, "broker/lifecycle/x.py", "from time import time"),
    (engines_decide_nothing, "broker/store/sqlite/x.py", "from airunner.broker.lifecycle.world import World"),
    (engines_decide_nothing, "broker/store/sqlite/x.py", "from airunner.protocol.states import TRANSITIONS"),
    (engines_decide_nothing, "broker/store/sqlite/x.py", "_DUE = \"state = 'RUNNING'\""),
    (engines_decide_nothing, "broker/store/postgres/x.py", "_DUE = \"state = 'RUNNING'\""),
    (postgres_is_used_through_any_pooler, "broker/store/postgres/x.py", "_WAKE = 'NOTIFY jobs'"),
    (postgres_is_used_through_any_pooler, "broker/store/postgres/x.py", "x = f'SELECT pg_advisory_lock({key})'"),
    (postgres_is_used_through_any_pooler, "broker/store/postgres/x.py", "x = 'create trigger t'"),
    (postgres_is_used_through_any_pooler, "broker/store/postgres/x.py", "x = 'savepoint a'"),
    (postgres_is_used_through_any_pooler, "broker/store/postgres/x.py", "with db.transaction(): pass"),
    (
        postgres_is_used_through_any_pooler,
        "broker/store/postgres/x.py",
        "with cursor.copy('COPY job FROM STDIN'): pass",
    ),
    (postgres_is_used_through_any_pooler, "broker/store/postgres/x.py", "x = {'options': '-cstatement_timeout=5s'}"),
    (postgres_is_used_through_any_pooler, "broker/store/postgres/x.py", "x = 'SET search_path = a'"),
    (only_anyio_waits, "agent/x.py", "import asyncio"),
    (names_say_what_a_thing_is, "agent/utils.py", ""),
    (names_say_what_a_thing_is, "agent/x.py", "class JobManager: ..."),
    (sql_stands_in_the_store, "broker/store/contract.py", "x = 'SELECT 1 FROM job'"),
    (no_test_sleeps, "tests/x.py", "time.sleep(1)"),
    (no_test_sleeps, "tests/x.py", "async def f():\n    await anyio.sleep(0.1)"),
    (cancelled_has_two_ls, "README.md", "the job was " + "cancel" + "ed"),
    (no_path_of_a_machine, "README.md", "see /" + "wo" + "rk/main"),
    (words_are_plain, "certs/x.py", "# Whoever asks"),
    (words_are_plain, "certs/x.py", "for one in jobs: ..."),
    (words_are_plain, "certs/x.py", "def _told(job): ..."),
    (words_are_plain, "certs/x.py", "KNOCKS_PER_S = 1"),
)


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    names = [name for name in listed.stdout.split("\0") if name]
    names = [name for name in names if "/vendor/" not in name and not name.endswith(PICTURES)]
    return [name for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


@pytest.mark.timeout(120)  # the first one parses every file
@pytest.mark.parametrize("rule", [*RULES, *TEXT_RULES], ids=lambda rule: rule.__name__)
def test_the_project_keeps(rule: Rule) -> None:
    assert not faults()[rule], "\n".join(faults()[rule])


@pytest.mark.parametrize(("rule", "path", "source"), OFFENDERS, ids=lambda part: getattr(part, "__name__", ""))
def test_each_rule_catches_what_it_is_against(rule: Rule, path: str, source: str) -> None:
    assert list(rule(path, source))


@pytest.mark.parametrize("folder", ENGINES)
def test_an_engine_is_small(folder: str) -> None:
    engine = [read(path) for path in tracked() if path.startswith(folder)]
    assert sum(source.count("\n") for source in engine) <= ENGINE_LINES_MAX[folder]


def test_the_strict_checkers_are_shown_every_part() -> None:
    # Neither fails for what it does not look at, and links inside a folder are not followed by both.
    tools = tomllib.loads(read("pyproject.toml"))["tool"]
    assert {"airunner", *(f"airunner/{part}" for part in PARTS)} <= set(tools["pyright"]["include"])
    assert "airunner" in tools["mypy"]["files"]
    assert tools["mypy"]["strict"]
    assert tools["pyright"]["typeCheckingMode"] == "strict"


def test_every_decision_is_listed() -> None:
    listed = read("docs/decisions/README.md")
    for page in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        number, title = re.fullmatch(r"# (\d+)\. (.+)", read(str(page.relative_to(ROOT))).splitlines()[0]).groups()
        assert f"{number}. [{title}]({page.name})" in listed


def test_links_between_pages_lead_somewhere() -> None:
    for name in tracked():
        if name.endswith(".md"):
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(name)):
                assert (ROOT / name).parent.joinpath(target).exists(), f"{name} points at {target}"


@pytest.mark.parametrize("page", ["README.md", "deploy/README.md", *PAGES])
def test_modules_that_a_page_names_exist(page: str) -> None:
    named = re.findall(r"`([a-z_/]+/\w+\.py)`", read(page))
    assert [path for path in named if not (ROOT / path).is_file()] == []


@cache
def faults() -> dict[Rule, list[str]]:
    """The faults that each rule finds in the project, of a file by all rules before the next is read."""
    found: dict[Rule, list[str]] = {rule: [] for rule in (*RULES, *TEXT_RULES)}
    for name in tracked():
        source = read(name)
        for rule in (*RULES, *TEXT_RULES) if name.endswith(".py") else TEXT_RULES:
            found[rule] += [f"{name}: {fault}" for fault in rule(name, source)]
    return found


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
