"""Captures as text: what is written is read back, and every kind of bad file is said in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.adapters import captures
from provisioner.errors import BadInput
from provisioner.facts.files import dump_capture, parse_capture
from tests.facts.hosts import NAMES, capture, recorded

HEAD = "format: 1\nhost: a\ntaken_at: 2026-11-24T03:07:00Z\nprobe: 0.1.0\n"


@pytest.mark.parametrize("name", NAMES)
def test_written_captures_read_back_the_same(name: str, tmp_path: Path) -> None:
    """Through the disk and back, whatever it was written as."""
    path = tmp_path / "rig.json"

    captures.save(recorded(name), path)

    assert captures.load_capture(path) == recorded(name)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["rig.json"]


@given(st.text())
def test_control_characters_are_escaped(text: str) -> None:
    """A capture's file drives no terminal that shows it, and loses nothing."""
    whole = capture({"/a": text.encode("utf-8", "backslashreplace").decode()}, {"x": "y"})

    written = dump_capture(whole)

    assert written.isascii()
    assert all(char.isprintable() or char == "\n" for char in written)
    assert parse_capture(written.encode(), "x") == whole


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no mapping"),
        (b"\xff\xfe\x00", "byte 0 is not UTF-8"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "control characters are not allowed"),
        (b'{"format": 1, "host": "rig', "line 1"),
        (b"[1, 2]", "holds no mapping"),
        (b"just words", "holds no mapping"),
        ((HEAD + "files: {/a: b").encode(), "line "),
        ((HEAD + "files:\n\t/a: b").encode(), "line 6"),
        ((HEAD + BOMB).encode(), "aliases"),
        ((HEAD + "files: &x {/a: b}\ncommands: *x").encode(), "aliases"),
        ((HEAD + "extra: 1").encode(), "extra"),
        ((HEAD + "files: {/a: [1]}").encode(), "files./a"),
        ((HEAD + "commands: {uname: {stdout: x}}").encode(), "commands.uname.rc"),
        (HEAD.replace("format: 1", "format: 2").encode(), "format"),
        (HEAD.replace("taken_at: 2026-11-24T03:07:00Z", "taken_at: soon").encode(), "taken_at"),
        (HEAD.replace("host: a\n", "").encode(), "host"),
        (b"x: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        (b'{"a":' * 100_000, "nest"),
        (b"[" * 100_000, "nest"),
        (b"- " * 100_000, "nest"),
    ],
)
def test_bad_captures_are_said_in_words(data: bytes, words: str) -> None:
    """File, reason, and where the format is described; never a traceback."""
    with pytest.raises(BadInput) as caught:
        parse_capture(data, "rig.yaml")

    assert caught.value.reference == "bad-capture"
    assert caught.value.message.startswith("rig.yaml cannot be used as a capture: ")
    assert words in caught.value.message
    assert "docs/reference/capture.md" in (caught.value.hint or "")


@given(st.binary(max_size=200))
def test_any_bytes_give_a_capture_or_words(data: bytes) -> None:
    """Nothing but BadInput comes out of a file that is no capture."""
    with pytest.raises(BadInput):
        parse_capture(data, "x")


def test_bad_paths_are_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent, a folder, too large, not writable."""
    (tmp_path / "large").write_bytes(b"x" * 100)
    monkeypatch.setattr(captures, "MAX_BYTES", 99)

    for path, words in (
        (tmp_path / "absent", "No such file"),
        (tmp_path, "no plain file"),
        (tmp_path / "large", "larger"),
    ):
        with pytest.raises(BadInput, match=words):
            captures.load_capture(path)
    with pytest.raises(BadInput, match="cannot be written"):
        captures.save(capture(), tmp_path / "absent" / "x")
