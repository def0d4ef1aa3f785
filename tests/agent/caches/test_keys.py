"""Keys of caches: the same for the same files, and another for each change of them."""

from __future__ import annotations

from pathlib import Path

from airunner.agent.caches.keys import key_of


def test_the_key_changes_with_the_content_and_the_paths_of_the_files_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    keys = [key_of(tmp_path, ("**/go.sum",)), key_of(tmp_path, ())]
    assert keys[0] == keys[1]
    for path, content in [("go.sum", "a"), ("go.sum", "b"), ("inner/go.sum", "b"), ("go.sum", "")]:
        (tmp_path / path).write_text(content)
        keys.append(key_of(tmp_path, ("**/go.sum",)))
    assert len(set(keys[1:])) == 5
    (tmp_path / "other").write_text("x")
    (tmp_path / "link/go.sum").parent.symlink_to("inner")
    (tmp_path / "go.sum").chmod(0o600)
    assert key_of(tmp_path, ("**/go.sum",)) == keys[-1]
    assert key_of(tmp_path, ("go.sum", "inner/*")) == keys[-1], "what counts is which files these are"
