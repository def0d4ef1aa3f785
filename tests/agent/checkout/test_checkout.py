"""Checkouts with the real git and the real launcher; silence is in test_checkout_silence.py."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import anyio
import pytest

from airunner.agent.checkout import checkout as module
from airunner.agent.checkout import git as git_module
from airunner.agent.checkout.git import CheckoutFailed, message_lines
from airunner.agent.checkout.mirrors import Mirror
from airunner.agent.checkout.remote import COMPARED_MAX
from airunner.agent.checkout.repository import Rules
from airunner.agent.checkout.revision import Source
from airunner.agent.launcher.contract import LaunchSpec, Process
from tests.agent.checkout.conftest import Checkout
from tests.agent.checkout.repositories import commit, git, new_repository
from tests.agent.checkout.serving import over_http
from tests.agent.playing import inline


class Repository:
    """`one` — `two` on main, `older` — `side` on a branch of that name, `lost` on none; a tag on `one`."""

    def __init__(self, path: Path) -> None:
        self.path = new_repository(path)
        self.url = path.as_uri().replace("%20", " ")
        self.one = git(path, "rev-parse", "HEAD")
        self.beginning = self.one[:9].upper()
        git(path, "tag", "v1")
        git(path, "tag", "hidden")
        git(path, "tag", "--annotate", "--message=x", "annotated")
        self.annotated = git(path, "rev-parse", "annotated")
        self.two = commit(path, "two")
        git(path, "branch", "hidden")
        git(path, "checkout", "--quiet", "-b", "side", self.one)
        self.older = commit(path, "older")
        self.side = commit(path, "side")
        git(path, "tag", "c0ffee12")
        for branch in ("facade", self.two[:8], self.older[:8], self.side):
            git(path, "branch", branch, self.one)
        git(path, "update-ref", "refs/pull/7/head", self.side)
        git(path, "checkout", "--quiet", "--detach", self.one)
        self.lost = commit(path, "lost")
        git(path, "checkout", "--quiet", "main")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("repositories") / "with space")


ONE_OF_EACH_KIND = [
    ("", "", "", "two"),
    ("main", "", "side", "two"),
    ("{side}", "", "", "side"),
    ("facade", "", "", "one"),
    ("refs/pull/7/head", "", "", "side"),
    ("", "refs/pull/7/head", "", "side"),
    ("", "refs/tags/hidden", "", "one"),
    ("{beginning}", "", "", "one"),
    ("{lost}", "", "", "lost"),
    ("{annotated}", "", "", "one"),
]
WITH_DEPTH = [("{older:.8}", "", "", "one")]  # a branch, and the start of the hash of a commit that is the tip of none
MORE = [
    ("", "", "side", "side"),
    ("", "", "v1", "one"),
    ("", "", "refs/tags/v1", "one"),
    ("", "", "hidden", "two"),
    ("", "refs/heads/hidden", "", "two"),
    ("hidden", "", "", "two"),
    ("v1", "", "", "one"),
    ("c0ffee12", "", "", "side"),
    ("{one}", "", "no-such-branch", "one"),
    ("{side}", "refs/tags/hidden", "", "side"),
    ("HEAD", "refs/tags/annotated", "", "one"),
]


@pytest.mark.parametrize(
    ("by", "commit", "ref", "branch", "expected"),
    [(by, *asked) for by in ("clone", "mirror", "depth") for asked in ONE_OF_EACH_KIND]
    + [("clone", *asked) for asked in MORE]
    + [("depth", *asked) for asked in WITH_DEPTH],
)
async def test_a_branch_a_tag_or_a_commit_is_checked_out_and_the_commit_wins(
    checkout: Checkout,
    repository: Repository,
    tmp_path: Path,
    by: str,
    commit: str,
    ref: str,
    branch: str,
    expected: str,
) -> None:
    done = await checkout(
        repository.url,
        commit=commit.format_map(vars(repository)),
        ref=ref,
        branch=branch,
        depth=1 if by == "depth" else None,
        mirror=Mirror(tmp_path / "mirror", inline) if by == "mirror" else None,
    )
    assert done == getattr(repository, expected)
    assert checkout.file == expected
    name = commit or branch or "main"
    on = name if name in ("main", "side", "hidden") and not ref else "HEAD"
    assert git(checkout.workspace.checkout, "rev-parse", "--abbrev-ref", "HEAD").removeprefix("heads/") == on


@pytest.mark.parametrize("depth", [None, 1])
async def test_a_hash_is_never_taken_for_the_branch_of_that_name(
    checkout: Checkout, repository: Repository, depth: int | None
) -> None:
    assert await checkout(repository.url, commit=repository.side, depth=depth) == repository.side
    shutil.rmtree(checkout.workspace.checkout)
    checkout.workspace.checkout.mkdir()
    start = repository.two if depth else repository.older
    with pytest.raises(CheckoutFailed, match="the start of another commit's hash: give the full hash"):
        await checkout(repository.url, commit=start[:8], depth=depth)


async def test_the_job_finds_the_history_and_the_tags_that_a_clone_has(
    checkout: Checkout, repository: Repository
) -> None:
    await checkout(repository.path, commit=repository.two)
    assert git(checkout.workspace.checkout, "describe", "--tags", "--match=v1").startswith("v1-1-g")


@pytest.mark.parametrize(
    ("url", "source", "words"),
    [
        ("/nonexistent/x.git", {}, "repository '/nonexistent/x.git' does not exist"),
        ("http://127.0.0.1:1/x.git", {}, "Failed to connect to 127.0.0.1 port 1"),
        ("", {"branch": "no-such-branch"}, "no-such-branch not found"),
        ("", {"commit": "0123456789"}, "none contains a commit"),
    ],
)
async def test_a_failure_is_told_in_gits_own_words(
    checkout: Checkout, repository: Repository, url: str, source: dict[str, str], words: str
) -> None:
    with pytest.raises(CheckoutFailed) as caught:
        await checkout(url or repository.path, **source)
    assert words in caught.value.message
    assert caught.value.exit_code in (128, None)


@pytest.mark.parametrize("by", ["clone", "new mirror", "mirror", "depth"])
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"commit": "0" * 40}, f"has no commit {'0' * 40}: give the hash of a commit that was pushed there"),
        ({"branch": "sides"}, "has no branch or tag sides; the nearest names are side"),
        ({"branch": "hiden"}, "has no branch or tag hiden; the nearest names are hidden, side"),
        ({"ref": "refs/pull/70/head"}, "has no ref refs/pull/70/head; the nearest names are refs/pull/7/head"),
        ({"ref": "refs/heads/v1"}, "has no ref refs/heads/v1; the nearest names are refs/"),
    ],
)
async def test_what_the_remote_lacks_costs_a_listing_and_no_transfer(
    checkout: Checkout, repository: Repository, tmp_path: Path, by: str, source: dict[str, str], words: str
) -> None:
    mirror = Mirror(tmp_path / "mirror", inline) if "mirror" in by else None
    if by == "mirror":
        await checkout(repository.url, mirror=mirror)
        shutil.rmtree(checkout.workspace.checkout)
        checkout.workspace.checkout.mkdir()
        checkout.told.clear()
    with pytest.raises(CheckoutFailed) as caught:
        await checkout(repository.url, depth=1 if by == "depth" else None, mirror=mirror, **source)
    assert f"{repository.url} {words}" in caught.value.message
    if "commit" in source and by in ("clone", "new mirror"):
        assert caught.value.message == f"{repository.url} {words}", "git's words on our own filter help nobody"
    assert [line for line in checkout.told if line.startswith(("Receiving", "trying"))] == []
    assert (tmp_path / "mirror").exists() is (by == "mirror")
    assert list(checkout.workspace.temporary.iterdir()) == []


@pytest.mark.parametrize(("ref", "nearest"), [("mian", "main"), ("v1.99", "v1.999")])
async def test_thousands_of_tags_do_not_hide_the_nearest_branch(
    checkout: Checkout, tmp_path: Path, ref: str, nearest: str
) -> None:
    many = new_repository(tmp_path / "many")
    tip = git(many, "rev-parse", "HEAD")
    (many / ".git/packed-refs").write_text(
        "".join(f"{tip} refs/tags/v{number:06}\n" for number in range(COMPARED_MAX)) + f"{tip} refs/tags/v1.999\n"
    )
    with pytest.raises(CheckoutFailed, match=f"the nearest names are {nearest}"):
        await checkout(many, branch=ref)


@pytest.mark.parametrize("depth", [None, 1])
async def test_the_start_of_no_hash_is_told_with_the_nearest_names(
    checkout: Checkout, repository: Repository, tmp_path: Path, depth: int | None
) -> None:
    mirror = Mirror(tmp_path / "mirror", inline)
    with pytest.raises(CheckoutFailed, match="has no branch or tag facade1, and none contains"):
        await checkout(repository.url, commit="facade1", depth=depth, mirror=mirror)
    assert "trying again without the mirror" not in checkout.told
    assert list(checkout.workspace.temporary.iterdir()) == []


@pytest.mark.parametrize("depth", [None, 1])
async def test_a_hash_of_no_commit_is_told(checkout: Checkout, repository: Repository, depth: int | None) -> None:
    tree = git(repository.path, "rev-parse", "HEAD^{tree}")
    with pytest.raises(CheckoutFailed, match=f"{tree} is not a commit"):
        await checkout(repository.url, commit=tree, depth=depth)


async def test_a_repository_whose_head_names_no_branch_says_so(checkout: Checkout, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "empty")
    git(new_repository(tmp_path / "astray"), "symbolic-ref", "HEAD", "refs/heads/gone")
    for name, words in (("empty", "names no branch$"), ("astray", "names no branch; the nearest names are main")):
        with pytest.raises(CheckoutFailed, match=f"has no commit to check out: its HEAD {words}"):
            await checkout(tmp_path / name)
        shutil.rmtree(checkout.workspace.checkout)
        checkout.workspace.checkout.mkdir()


async def test_what_is_refused_never_reaches_git(checkout: Checkout) -> None:
    class NoLauncher:
        async def launch(self, spec: LaunchSpec) -> Process:
            raise AssertionError(spec)

    checkout.launcher = NoLauncher()
    for repository in ("ext::sh -c touch% x", "--upload-pack=touch x", "-oProxyCommand=x"):
        with pytest.raises(CheckoutFailed):
            await checkout(repository)
    for source in ({"branch": "--upload-pack=touch x"}, {"commit": "a\x1b[2J"}):
        with pytest.raises(CheckoutFailed, match=r"dash|control"):
            await checkout("/srv/p", **source)
    checkout.rules = Rules()
    with pytest.raises(CheckoutFailed, match="start the agent with --allow-local"):
        await checkout("/srv/p")


async def test_git_itself_is_told_which_transports_it_may_use(
    checkout: Checkout, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second wall, behind the refusal: were it to let a local path pass, git would not."""

    def let_pass(_source: Source, rules: Rules) -> None:
        assert not rules.allow_local

    monkeypatch.setattr(module, "refusal", let_pass)
    checkout.rules = Rules()
    marker = checkout.workspace.root / "marker"
    for path in (str(repository.path), f"ext::sh -c touch% {marker}"):
        with pytest.raises(CheckoutFailed, match=r"transport '(file|ext)' not allowed"):
            await checkout(path)
    assert not marker.exists()


async def test_nothing_of_the_machines_git_is_run_or_read(
    checkout: Checkout, repository: Repository, tmp_path: Path
) -> None:
    hook = tmp_path / "templates" / "hooks" / "post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/marker\n")
    hook.chmod(0o755)
    (tmp_path / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {hook.parent}\n[init]\n\ttemplateDir = {hook.parents[1]}\n"
    )
    checkout.environ |= {
        "HOME": str(tmp_path),
        "GIT_CONFIG_GLOBAL": str(tmp_path / ".gitconfig"),
        "GIT_TEMPLATE_DIR": str(hook.parents[1]),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.hooksPath",
        "GIT_CONFIG_VALUE_0": str(hook.parent),
    }
    await checkout(repository.path)
    assert not (tmp_path / "marker").exists()
    assert not (checkout.workspace.checkout / ".git" / "hooks").exists()
    assert list(checkout.workspace.home.iterdir()) == []


async def test_git_is_not_handed_the_agents_secrets(checkout: Checkout, tmp_path: Path) -> None:
    checkout.replace_git(tmp_path, f"env > {tmp_path}/seen\nexit 9")
    checkout.environ |= {"AIRUNNER_TOKEN": "s3cret", "HTTPS_PROXY": "http://proxy"}
    with pytest.raises(CheckoutFailed, match="git clone exited with 9") as caught:
        await checkout("/srv/p")
    assert caught.value.exit_code == 9
    seen = (tmp_path / "seen").read_text()
    assert "s3cret" not in seen
    for line in ("HTTPS_PROXY=http://proxy", "GIT_TERMINAL_PROMPT=0", f"HOME={checkout.workspace.home}\n"):
        assert line in seen


async def test_a_machine_without_git_is_told_so(checkout: Checkout, tmp_path: Path) -> None:
    checkout.environ = {"PATH": str(tmp_path)}
    with pytest.raises(CheckoutFailed, match=r"git cannot be started: git: command not found") as caught:
        await checkout("/srv/p")
    assert caught.value.exit_code == 127


async def test_the_last_words_are_kept_and_none_is_cut_in_two(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kept tail begins in the middle of a line with a password, most of which is progress."""
    script = """printf 'x%.0s' $(seq 100) >&2
        echo ' https://u:a-very-long-password@h/' >&2
        i=0; while [ $i -lt 1000 ]; do i=$((i+1)); printf 'Receiving objects: %59d\\n' $i >&2; done
        echo 'fatal: last words' >&2; exit 3"""
    checkout.replace_git(tmp_path, script)
    for kept in range(79_000, 79_060, 7):
        monkeypatch.setattr(git_module, "OUTPUT_BYTES_MAX", kept)
        with pytest.raises(CheckoutFailed) as caught:
            await checkout("https://u:a-very-long-password@h/")
        assert caught.value.message == "fatal: last words"


@pytest.mark.parametrize("user", ["", "somebody:hunter2@", "ghp_0123456789abcdef@", "u:h%75nter2@"])
async def test_a_password_is_neither_asked_for_nor_shown(checkout: Checkout, tmp_path: Path, user: str) -> None:
    with over_http(tmp_path, "nobody:knows") as locked, pytest.raises(CheckoutFailed) as caught:
        await checkout(f"http://{user}{locked.authority}/x.git")
    assert caught.value.exit_code == 128
    for secret in ("hunter2", "h%75nter2", "ghp_0123456789abcdef"):
        assert secret not in caught.value.message


async def test_cancelling_ends_git(checkout: Checkout, tmp_path: Path) -> None:
    """The writer of a pipe that git, and what it started, hold open is gone."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    checkout.replace_git(tmp_path, f"exec 3> {pipe}\necho begun >&3\nsleep 1000 & sleep 1000")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(checkout, "/srv/p")
                await anyio.wait_readable(reader)
                assert os.read(reader, 100) == b"begun\n"
                group.cancel_scope.cancel()
            await anyio.wait_readable(reader)
        assert os.read(reader, 100) == b""
    finally:
        os.close(reader)


def test_progress_and_control_characters_are_left_out_of_gits_words() -> None:
    written = (
        b"Cloning into '.'...\nremote: Enumerating objects: 5, done.\nremote: Counting objects:  20% (1/5)\r"
        b"remote: Counting objects: 100% (5/5), done.\nReceiving objects: 100% (5/5), done.\r\n"
        b"remote: \x1b[31mno\x07\nfatal: early \xff EOF\n"
    )
    assert message_lines(written) == ["remote: [31mno", "fatal: early \ufffd EOF"]
