"""A repository's password is found by one parser, or the address is refused without a word of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.protocol.fields import JobSpec
from airunner.protocol.gitaddress import BadAddress, address_secrets, shown_address, split_address
from airunner.protocol.redaction import without_credentials
from airunner.protocol.requests import EnqueueJob

SHOWN = [
    ("https://user:hunter2@host/x.git", "https://[REDACTED]@host/x.git"),
    ("https://hunter2hunter2@host/x", "https://[REDACTED]@host/x"),
    ("https://u:hunter2@hunter2@host/x", "https://[REDACTED]@host/x"),
    ("https://us'er:hun'ter\"2@host/x", "https://[REDACTED]@host/x"),
    ("https://u:hunter2%2Fx@host:8443/x", "https://[REDACTED]@host:8443/x"),
    ("https://u:hunter2@[2001:db8::1]:8443/x", "https://[REDACTED]@[2001:db8::1]:8443/x"),
    ("https://u:hunter2@bücher.example/x@v1", "https://[REDACTED]@bücher.example/x@v1"),
    ("HTTPS://u:hunter2@host/x", "HTTPS://[REDACTED]@host/x"),
    ("ssh://git:hunter2@host/x", "ssh://[REDACTED]@host/x"),
    ("https://host/path@v1", "https://host/path@v1"),
    ("https://host:8443/%40scope/x", "https://host:8443/%40scope/x"),
    ("git@host:group/x.git", "git@host:group/x.git"),
    ("git@[2001:db8::1]:x", "git@[2001:db8::1]:x"),
    ("/srv/a@b/with space:x", "/srv/a@b/with space:x"),
    ("file:///srv/a@b/x#1", "file:///srv/a@b/x#1"),
    ("./relative", "./relative"),
    ("", ""),
]
REFUSED = [
    "https://user:hun/ter2@host/x",
    "https://user:12/hunter2@host/x",
    "https://user:hunter2/@host/x",
    "https://hun/ter2@host/x",
    "https://host/@hunter2/x",
    "https://user:hun?ter2@host/x",
    "https://user:hun#ter2@host/x",
    "https://hun?ter2@host/x",
    "https://user:p@hunter2/p@host/x",
    "https://user:hun ter2@host/x",
    "https://user:hun\\ter2@host/x",
    "https://user:hunter2@host\n.example/x",
    "https://user:hunter2\t@host/x",
    "https://user:hunter2%0a@host/x",
    "https://user:hunter2\u200b@host/x",
    "https://user:hunter2@host\uff0fx/y",
    "https://host/x?access_token=hunter2",
    "https://host/x#hunter2",
    "https:/user:hunter2@host/x",
    "https:user:hunter2@host/x",
    "https:\\\\user:hunter2@host\\x",
    "user:hunter2@host:x",
    "user:hunter2@host/x",
    "hunter2hunter2@host/x",
    "//user:hunter2@host/x",
    "file://user:hunter2@host/x",
    "ext::sh -c 'curl -u user:hunter2 host'",
    "https::https://user:hunter2@host/x",
    "https://a@host/x;https://user:hunter2@host",
]


@pytest.mark.parametrize(("repository", "shown"), SHOWN)
def test_an_address_is_shown_without_what_opens_it(repository: str, shown: str) -> None:
    assert shown_address(repository) == shown
    EnqueueJob(jobs=(JobSpec(command="true", repository=repository),))


@pytest.mark.parametrize("repository", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused_without_a_word_of_it(repository: str) -> None:
    with pytest.raises(ValueError, match="repository") as refused:
        EnqueueJob(jobs=(JobSpec(command="true", repository=repository),))
    for part in ("hun", "ter2"):
        assert part not in str(refused.value)
        assert part not in shown_address(repository)
    assert any("hun" in secret for secret in address_secrets(repository))


@pytest.mark.parametrize(
    ("repository", "secrets"),
    [
        ("https://user:hunter%2F2@host/x", ["hunter%2F2", "hunter/2"]),
        ("https://ghp_0123456789@host/x", ["ghp_0123456789"]),
        ("https://ghp_0123456789:x-oauth-basic@host/x", ["ghp_0123456789"]),
        ("https://ghp_0123456789:@host/x", ["ghp_0123456789"]),
        ("ssh://git@host/x", []),
        ("git@host:x", []),
        ("", []),
    ],
)
def test_the_secrets_of_an_address_are_its_password_or_a_user_that_is_a_token(
    repository: str, secrets: list[str]
) -> None:
    assert address_secrets(repository) == secrets


def test_an_address_is_local_or_has_a_host_and_is_asked_for_without_its_credentials() -> None:
    assert all(split_address(local).is_local for local in ("/srv/x", "FILE:///srv/x", "./x"))
    assert not any(split_address(remote).is_local for remote in ("host:x", "ssh://host/x"))
    assert split_address("https://u:hunter2@host:1/x@v").plain == "https://host:1/x@v"
    with pytest.raises(BadAddress, match="empty"):
        split_address("")


PASSWORD = st.text(min_size=1, max_size=12).map(lambda text: f"<{text}>")


@given(PASSWORD)
def test_no_password_at_all_is_shown(password: str) -> None:
    repository = f"https://user:{password}@host/x.git"
    assert password not in shown_address(repository)
    assert password in address_secrets(repository) or password in "".join(address_secrets(repository))
    try:
        found = split_address(repository).password
    except BadAddress as bad:
        found = password if password not in str(bad) else None
    assert found == password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("unable to access 'https://u:p'w@h/': no", "unable to access 'https://[REDACTED]@h/': no"),
        ("see https://u:p/w@h/x and https://h/@scope/x", "see https://[REDACTED]@h/x and https://h/@scope/x"),
        ("https://h:80/x@v1 https://[::1]:80/x@v1 a@b", "https://h:80/x@v1 https://[::1]:80/x@v1 a@b"),
        ("https://h/x?private_token=abc&y=1", "https://h/x?private_token=[REDACTED]&y=1"),
    ],
)
def test_other_words_are_shown_without_the_credentials_of_their_urls(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
