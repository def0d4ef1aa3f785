"""Checkouts with the real git and the real launcher; silence is in test_checkout_silence.py."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import anyio
import pytest

from airunner.agent.checkout import checkout, git
from airunner.agent.checkout.checkout import CheckedOut, Terms, check_out
from airunner.agent.checkout.git import CheckoutFailed, spoken
from airunner.agent.checkout.mirrors import Mirror
from airunner.agent.checkout.repository import Rules
from airunner.agent.checkout.source import Source
from airunner.agent.launcher.contract import Launcher, LaunchSpec, Process
from airunner.agent.workspace.workspace import Workspace

pytestmark = pytest.mark.anyio

ENVIRON = {"PATH": os.environ["PATH"]}
REMOTE = Terms(Rules(), lambda: 0.0, lambda _: None)
TERMS = Terms(Rules(allow_local=True), REMOTE.random, REMOTE.tell)


class Repository:
    """A real one: `one` — `two` on main, `side` on a branch of that name, `lost` on none; a tag on `one`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.one = self.commit("one")
        self.git("tag", "v1")
        self.two = self.commit("two")
        self.git("checkout", "--quiet", "-b", "side", self.one)
        self.side = self.commit("side")
        self.git("tag", "c0ffee12")
        self.git("branch", "facade", self.one)
        self.git("branch", self.two[:8], self.one)
        self.git("branch", self.side, self.one)
        self.git("update-ref", "refs/pull/7/head", self.side)
        self.git("checkout", "--quiet", "--detach", self.one)
        self.lost = self.commit("lost")
        self.git("checkout", "--quiet", "main")

    def git(self, *arguments: str) -> str:
        environment = {
            "PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org",
        }  # fmt: skip
        done = subprocess.run(
            ("git", *arguments), cwd=self.path, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, word: str) -> str:
        (self.path / "file").write_text(word)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", word)
        return self.git("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("repositories") / "with space")


async def test_the_default_is_the_remotes_head(
    launcher: Launcher, workspace: Workspace, repository: Repository
) -> None:
    done = await check_out(
        launcher, Source(repository=str(repository.path)), TERMS, workspace=workspace, agent_environ=ENVIRON
    )
    assert done == CheckedOut(repository.two)
    assert (workspace.checkout / "file").read_text() == "two"


@pytest.mark.parametrize(
    ("branch", "commit", "expected"),
    [
        ("side", "", "side"),
        ("v1", "", "one"),
        ("", "one", "one"),
        ("side", "one", "one"),
        ("no-such-branch", "one", "one"),
        ("", "lost", "lost"),
    ],
)
async def test_a_branch_a_tag_or_a_commit_is_checked_out_and_the_commit_wins(
    launcher: Launcher, workspace: Workspace, repository: Repository, branch: str, commit: str, expected: str
) -> None:
    source = Source(
        repository=repository.path.as_uri().replace("%20", " "),
        branch=branch,
        commit=getattr(repository, commit) if commit else "",
    )
    done = await check_out(launcher, source, TERMS, workspace=workspace, agent_environ=ENVIRON)
    assert done.commit == getattr(repository, expected)
    assert (workspace.checkout / "file").read_text() == expected


async def test_an_abbreviated_commit_is_named_in_full(
    launcher: Launcher, workspace: Workspace, repository: Repository
) -> None:
    source = Source(repository=str(repository.path), commit=repository.one[:9].upper())
    done = await check_out(launcher, source, TERMS, workspace=workspace, agent_environ=ENVIRON)
    assert done.commit == repository.one


@pytest.mark.parametrize("by", ["clone", "mirror", "depth"])
@pytest.mark.parametrize(
    ("commit", "branch", "expected"),
    [
        ("main", "", "two"),
        ("main", "side", "two"),
        ("v1", "", "one"),
        ("HEAD", "", "two"),
        ("HEAD", "side", "side"),
        ("c0ffee12", "", "side"),
        ("facade", "", "one"),
        ("refs/pull/7/head", "", "side"),
        ("", "refs/tags/v1", "one"),
    ],
)
async def test_a_commit_may_be_the_name_of_a_branch_or_a_tag(
    launcher: Launcher,
    workspace: Workspace,
    repository: Repository,
    commit: str,
    branch: str,
    expected: str,
    by: str,
) -> None:
    depth = 1 if by == "depth" else None
    source = Source(repository=repository.path.as_uri().replace("%20", " "), commit=commit, branch=branch, depth=depth)
    mirror = Mirror(workspace.root.parent / "mirror") if by == "mirror" else None
    done = await check_out(launcher, source, TERMS, workspace=workspace, agent_environ=ENVIRON, mirror=mirror)
    assert done.commit == getattr(repository, expected)
    assert (workspace.checkout / "file").read_text() == expected


@pytest.mark.parametrize("depth", [None, 1])
async def test_a_hash_is_never_taken_for_the_branch_of_that_name(
    launcher: Launcher, workspace: Workspace, repository: Repository, depth: int | None
) -> None:
    url = repository.path.as_uri().replace("%20", " ")
    full = Source(repository=url, commit=repository.side, depth=depth)
    assert (
        await check_out(launcher, full, TERMS, workspace=workspace, agent_environ=ENVIRON)
    ).commit == repository.side
    checkout._empty(workspace)
    beginning = Source(repository=url, commit=repository.two[:8], depth=depth)
    with pytest.raises(CheckoutFailed, match="another commit's hash begins so: give the full hash"):
        await check_out(launcher, beginning, TERMS, workspace=workspace, agent_environ=ENVIRON)


async def test_the_job_finds_the_history_and_the_tags_that_a_clone_has(
    launcher: Launcher, workspace: Workspace, repository: Repository
) -> None:
    source = Source(repository=str(repository.path), commit=repository.two)
    await check_out(launcher, source, TERMS, workspace=workspace, agent_environ=ENVIRON)
    described = await anyio.run_process(("git", "describe", "--tags"), cwd=workspace.checkout)
    assert described.stdout.startswith(b"v1-1-g")


@pytest.mark.parametrize(
    ("repository_of", "branch", "commit", "words"),
    [
        ("/nonexistent/x.git", "", "", "repository '/nonexistent/x.git' does not exist"),
        ("http://127.0.0.1:1/x.git", "", "", "Failed to connect to 127.0.0.1 port 1"),
        ("", "no-such-branch", "", "no-such-branch not found"),
        ("", "", "0" * 40, "not our ref"),
        ("", "", "0123456789", "no branch or tag reaches"),
    ],
)
async def test_a_failure_is_told_in_gits_own_words(
    launcher: Launcher, workspace: Workspace, repository: Repository,
    repository_of: str, branch: str, commit: str, words: str,
) -> None:  # fmt: skip
    source = Source(repository=repository_of or str(repository.path), branch=branch, commit=commit)
    with pytest.raises(CheckoutFailed) as caught:
        await check_out(launcher, source, TERMS, workspace=workspace, agent_environ=ENVIRON)
    assert words in caught.value.message
    assert caught.value.exit_code in (128, None)


async def test_an_empty_repository_fails_and_says_so(launcher: Launcher, workspace: Workspace, tmp_path: Path) -> None:
    await anyio.run_process(("git", "init", "--quiet", "--bare", tmp_path / "empty"))
    with pytest.raises(CheckoutFailed, match="no commit"):
        await check_out(
            launcher, Source(repository=str(tmp_path / "empty")), TERMS, workspace=workspace, agent_environ=ENVIRON
        )


async def test_what_is_refused_never_reaches_git(workspace: Workspace) -> None:
    class NoLauncher:
        async def launch(self, spec: LaunchSpec) -> Process:
            raise AssertionError(spec)

    marker = workspace.root / "marker"
    for repository in (f"ext::sh -c touch% {marker}", f"--upload-pack=touch {marker}", "-oProxyCommand=x"):
        with pytest.raises(CheckoutFailed):
            await check_out(
                NoLauncher(), Source(repository=repository), TERMS, workspace=workspace, agent_environ=ENVIRON
            )
    with pytest.raises(CheckoutFailed, match="not allowed"):
        await check_out(NoLauncher(), Source(repository="/srv/p"), REMOTE, workspace=workspace, agent_environ=ENVIRON)


async def test_git_itself_is_told_which_transports_it_may_use(
    launcher: Launcher, workspace: Workspace, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second wall, behind the refusal: were it to let a local path pass, git would not."""
    monkeypatch.setattr(checkout, "refusal", _let_pass)
    for path in (str(repository.path), f"ext::sh -c touch% {workspace.root}/marker"):
        with pytest.raises(CheckoutFailed, match=r"transport '(file|ext)' not allowed"):
            await check_out(launcher, Source(repository=path), REMOTE, workspace=workspace, agent_environ=ENVIRON)
    assert not (workspace.root / "marker").exists()


def _let_pass(_source: Source, rules: Rules) -> None:
    assert not rules.allow_local


async def test_nothing_of_the_machines_git_is_run_or_read(
    launcher: Launcher, workspace: Workspace, repository: Repository, tmp_path: Path
) -> None:
    hook = tmp_path / "templates" / "hooks" / "post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/marker\n")
    hook.chmod(0o755)
    (tmp_path / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {hook.parent}\n[init]\n\ttemplateDir = {hook.parents[1]}\n"
    )
    environ = {
        **ENVIRON,
        "HOME": str(tmp_path),
        "GIT_CONFIG_GLOBAL": str(tmp_path / ".gitconfig"),
        "GIT_TEMPLATE_DIR": str(hook.parents[1]),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.hooksPath",
        "GIT_CONFIG_VALUE_0": str(hook.parent),
    }
    await check_out(
        launcher, Source(repository=str(repository.path)), TERMS, workspace=workspace, agent_environ=environ
    )
    assert not (tmp_path / "marker").exists()
    assert not (workspace.checkout / ".git" / "hooks").exists()
    assert list(workspace.home.iterdir()) == []


async def test_git_is_not_handed_the_agents_secrets(launcher: Launcher, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "git").write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\nexit 9\n")
    (tmp_path / "git").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{ENVIRON['PATH']}", "AIRUNNER_TOKEN": "s3cret", "HTTPS_PROXY": "http://proxy"}
    with pytest.raises(CheckoutFailed, match="git clone exited with 9") as caught:
        await check_out(launcher, Source(repository="/srv/p"), TERMS, workspace=workspace, agent_environ=environ)
    assert caught.value.exit_code == 9
    seen = (tmp_path / "seen").read_text()
    assert "s3cret" not in seen
    assert "HTTPS_PROXY=http://proxy" in seen
    assert "GIT_TERMINAL_PROMPT=0" in seen
    assert f"HOME={workspace.home}\n" in seen


async def test_a_machine_without_git_is_told_so(launcher: Launcher, workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(CheckoutFailed, match=r"git cannot be started: git: command not found") as caught:
        await check_out(
            launcher, Source(repository="/srv/p"), TERMS, workspace=workspace, agent_environ={"PATH": str(tmp_path)}
        )
    assert caught.value.exit_code == 127


async def test_the_last_words_are_kept_and_none_is_cut_in_two(
    launcher: Launcher, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kept tail begins in the middle of a line with a password, most of which is progress."""
    script = """printf 'x%.0s' $(seq 100) >&2
        echo ' https://u:a-very-long-password@h/' >&2
        i=0; while [ $i -lt 1000 ]; do i=$((i+1)); printf 'Receiving objects: %59d\\n' $i >&2; done
        echo 'fatal: last words' >&2; exit 3"""
    (tmp_path / "git").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "git").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{ENVIRON['PATH']}"}
    for kept in range(79_000, 79_060, 7):
        monkeypatch.setattr(git, "OUTPUT_BYTES_MAX", kept)
        with pytest.raises(CheckoutFailed) as caught:
            await _check_out(launcher, workspace, environ, "https://u:a-very-long-password@h/")
        assert caught.value.message == "fatal: last words"


class Locked(BaseHTTPRequestHandler):
    """A server that wants a password, and says again what it was told."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="locked"')
        self.end_headers()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing."""


@pytest.fixture
def locked() -> Generator[str]:
    with HTTPServer(("127.0.0.1", 0), Locked) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("user", ["", "somebody:hunter2@", "ghp_0123456789abcdef@", "u:h%75nter2@"])
async def test_a_password_is_neither_asked_for_nor_shown(
    launcher: Launcher, workspace: Workspace, locked: str, user: str
) -> None:
    with pytest.raises(CheckoutFailed) as caught:
        await check_out(
            launcher,
            Source(repository=f"http://{user}{locked}/x.git"),
            TERMS,
            workspace=workspace,
            agent_environ=ENVIRON,
        )
    assert caught.value.exit_code == 128
    for secret in ("hunter2", "h%75nter2", "ghp_0123456789abcdef"):
        assert secret not in caught.value.message


async def test_cancelling_ends_git(launcher: Launcher, workspace: Workspace, tmp_path: Path) -> None:
    """The writer of a pipe that git, and what it started, hold open is gone."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "git").write_text(f"#!/bin/sh\nexec 3> {pipe}\necho begun >&3\nsleep 1000 & sleep 1000\n")
    (tmp_path / "git").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{ENVIRON['PATH']}"}
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(_check_out, launcher, workspace, environ)
                await anyio.wait_readable(reader)
                assert os.read(reader, 100) == b"begun\n"
                group.cancel_scope.cancel()
            await anyio.wait_readable(reader)
        assert os.read(reader, 100) == b""
    finally:
        os.close(reader)


async def _check_out(launcher: Launcher, workspace: Workspace, environ: dict[str, str], url: str = "/srv/p") -> None:
    await check_out(launcher, Source(repository=url), TERMS, workspace=workspace, agent_environ=environ)


def test_progress_and_control_characters_are_left_out_of_gits_words() -> None:
    written = (
        b"Cloning into '.'...\nremote: Enumerating objects: 5, done.\nremote: Counting objects:  20% (1/5)\r"
        b"remote: Counting objects: 100% (5/5), done.\nReceiving objects: 100% (5/5), done.\r\n"
        b"remote: \x1b[31mno\x07\nfatal: early \xff EOF\n"
    )
    assert spoken(written) == ["remote: [31mno", "fatal: early \ufffd EOF"]
