"""Caches of a job: which are refused, and which a job may have whose submitter lacks the right to save them."""

from __future__ import annotations

import pytest

from airunner.protocol.caches import PRESETS, Cache, SaveWhen, fits_cache_name, fits_key, permitted
from airunner.protocol.errors import FieldError
from airunner.protocol.fields import JobSpec


def cache(name: str = "deps", **fields: object) -> Cache:
    return Cache(**{"name": name, "paths": (f"~/{name}",), **fields})  # type: ignore[arg-type]  # as in a table


@pytest.mark.parametrize(
    "caches",
    [
        *(
            (cache(paths=(path,)),)
            for path in ("/etc", "~", "~/", "a/../b", "~/../x", "./a", "a//b", "a\0", ".git/hooks")
        ),
        *((cache(key=(glob,)),) for glob in ("/etc/passwd", "a/../../b", "a\n")),
        (cache(), cache(paths=("other",))),
        (cache(), cache("other", paths=("~/deps/part",))),
        (cache(paths=("build", "build")),),
    ],
)
def test_paths_out_of_home_and_checkout_and_those_in_two_caches_are_refused(caches: tuple[Cache, ...]) -> None:
    with pytest.raises(FieldError, match="caches"):
        JobSpec(command="true", caches=caches)


def test_every_known_cache_can_be_used_with_all_others_and_a_name_with_several_labels() -> None:
    more = (cache("go", label="release", paths=("~/.git/x", "release")),)
    assert JobSpec(command="true", caches=(*PRESETS.values(), *more)).caches[-1:] == more


def test_caches_of_labels_that_a_token_lacks_are_never_saved() -> None:
    caches = (cache(), cache("other", label="release", save=SaveWhen.ALWAYS))
    assert permitted(caches, frozenset("*")) == caches
    saved = [each.save for each in permitted(caches, frozenset({"release"}))]
    assert saved == [SaveWhen.NEVER, SaveWhen.ALWAYS]
    assert {each.save for each in permitted(caches, frozenset())} == {SaveWhen.NEVER}


def test_a_key_is_asked_for_by_its_beginning_and_names_are_in_small_letters() -> None:
    assert [fits_key(text) for text in ("464e", "f" * 64, "f" * 65, "464E", "g")] == [True, True, False, False, False]
    assert [fits_cache_name(text) for text in ("go-1.22", "Go", "-go", "")] == [True, False, False, False]
