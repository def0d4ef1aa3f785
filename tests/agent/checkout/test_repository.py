"""What git is asked for, and how it is spoken of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.agent.checkout.repository import Rules, redact, refusal
from airunner.agent.checkout.revision import Kind, Source, Wanted, wanted_of
from airunner.protocol.redaction import PLACEHOLDERS

ALLOWED = [
    "https://example.org/group/project.git",
    "https://user:secret@example.org:8443/p.git",
    "http://10.0.0.1/p",
    "git://example.org/p.git",
    "ssh://git@example.org:2222/p.git",
    "ssh://git@[2001:db8::1]/p.git",
    "git@example.org:group/project.git",
    "example.org:p",
]
LOCAL = ["/srv/git/project.git", "/srv/with space/p", "/srv/odd:name", "file:///srv/git/project.git"]
REFUSED = [
    ("", "empty"),
    ("--upload-pack=touch /tmp/x", "dash"),
    ("-u touch /tmp/x", "dash"),
    ("-oProxyCommand=x", "dash"),
    ("ext::sh -c touch% /tmp/x", "transports"),
    ("fd::17", "transports"),
    ("gopher://example.org/p", "scheme"),
    ("git+ssh://example.org/p", "scheme"),
    ("HTTPS://example.org/p", "scheme"),
    ("ssh://-oProxyCommand=x/p", "dash"),
    ("ssh://git@-oProxyCommand=x/p", "dash"),
    ("git@-oProxyCommand=x:p", "dash"),
    ("ssh://host:-oProxyCommand=x/p", "host"),
    ("ssh://-oProxyCommand=x@host/p", "dash"),
    ("ssh://%2DoProxyCommand=x/p", "dash"),
    ("ssh://git@[-oProxyCommand=x]/p", "dash"),
    ("git://host%0Aother/p", "control"),
    ("https://user:a%0Ahost=b@host/p", "control"),
    ("https:///p", "no host"),
    ("https://user@/p", "no host"),
    ("relative/path", "absolute"),
    ("./p", "absolute"),
    ("~/p", "absolute"),
    ("https://example.org/p\n--upload-pack=x", "control"),
    ("/srv/p\x1b[2J", "control"),
]


@pytest.mark.parametrize("repository", ALLOWED)
def test_what_people_clone_from_is_allowed(repository: str) -> None:
    assert refusal(Source(repository=repository), Rules()) is None


@pytest.mark.parametrize("repository", LOCAL)
def test_local_repositories_are_allowed_only_where_the_agent_says_so(repository: str) -> None:
    assert refusal(Source(repository=repository), Rules(allow_local=True)) is None
    assert "not allowed" in (refusal(Source(repository=repository), Rules()) or "")


@pytest.mark.parametrize(("repository", "why"), REFUSED)
def test_what_is_not_plainly_a_place_is_refused(repository: str, why: str) -> None:
    assert why in (refusal(Source(repository=repository), Rules(allow_local=True)) or "")


NAMES = ["--all", "a" * 40 + "^", "main~1", "a:b", "a..b", "@{-1}", "refs/heads/*", "a b", "x.lock", "/a", "a/", "a//b"]
NAMES += ["-q", "--upload-pack=x", "a\0b", "a\nb", "a\x1b[2J"]


@pytest.mark.parametrize("name", NAMES)
def test_a_commit_is_a_hash_or_a_name_and_nothing_that_git_computes(name: str) -> None:
    assert refusal(Source(repository="/p", commit=name), Rules(allow_local=True))
    assert refusal(Source(repository="/p", branch=name), Rules(allow_local=True))


@pytest.mark.parametrize(
    ("commit", "branch", "wanted"),
    [
        ("", "", Wanted(Kind.HEAD)),
        ("HEAD", "", Wanted(Kind.HEAD)),
        ("HEAD", "dev", Wanted(Kind.NAME, "dev")),
        ("", "HEAD", Wanted(Kind.HEAD)),
        ("main", "dev", Wanted(Kind.NAME, "main")),
        ("v1.0", "", Wanted(Kind.NAME, "v1.0")),
        ("a" * 40, "a" * 40, Wanted(Kind.HASH, "a" * 40)),
        ("A" * 64, "", Wanted(Kind.HASH, "A" * 64)),
        ("", "a" * 40, Wanted(Kind.NAME, "a" * 40)),
        ("CAfe", "feature/ü-1", Wanted(Kind.HASH_OR_NAME, "CAfe")),
        ("", "cafe", Wanted(Kind.NAME, "cafe")),
        ("abc", "", Wanted(Kind.NAME, "abc")),
        ("refs/pull/7/head", "main", Wanted(Kind.REF, "refs/pull/7/head")),
        ("", "refs/heads/main", Wanted(Kind.REF, "refs/heads/main")),
    ],
)
def test_what_is_wanted_is_told_from_how_it_is_written(commit: str, branch: str, wanted: Wanted) -> None:
    source = Source(repository="/p", commit=commit, branch=branch)
    assert refusal(source, Rules(allow_local=True)) is None
    assert wanted_of(source) == wanted


def test_a_refusal_shows_no_credentials() -> None:
    why = refusal(Source(repository="gopher://user:hunter2@host/x"), Rules(allow_local=True))
    assert why is not None
    assert "hunter2" not in why


def test_a_token_without_a_password_is_redacted_everywhere_and_a_common_name_is_not() -> None:
    assert "ghp_0123456789" not in redact("remote: bad ghp_0123456789", "https://ghp_0123456789@host/x")
    assert redact("git said no", "ssh://git@host/x") == "git said no"


MEANING = "/?#@:'\"%[]REDACT\\"
SECRET = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=MEANING), min_size=3).filter(
    lambda secret: secret not in PLACEHOLDERS
)


@given(SECRET, st.text(max_size=30), st.text(max_size=30))
def test_no_password_passes_in_whatever_words(secret: str, before: str, after: str) -> None:
    url = f"https://user:{secret}@host/x.git"
    assert secret not in redact(f"{secret} 'fatal: {url}' {secret}", url)
    assert url not in redact(f"{before}{url}{after}", url)
