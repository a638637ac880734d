"""Captures that are broken, enormous or hostile: a clear error or a safe screen, never a traceback, never an escape."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.cli.main import main
from provisioner.cli.views.doctor import diagnosis_json, diagnosis_text
from provisioner.facts.files import dump_capture
from provisioner.model.capture import Capture, CommandOutput
from tests.doctor.hosts import Rig
from tests.doctor.variants import VARIANTS
from tests.doctor.world import EXPECTED, failure, look

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
HOSTS = [*(failure(name) for name in sorted(EXPECTED)[::3]), *(v.capture for v in list(VARIANTS.values())[::4])]


def changed(capture: Capture, change: Callable[[str], str]) -> Capture:
    """Every text of the capture changed."""
    return capture.model_copy(
        update={
            "files": {path: None if text is None else change(text) for path, text in capture.files.items()},
            "commands": {
                line: CommandOutput(rc=item.rc, stdout=change(item.stdout), stderr=change(item.stderr))
                for line, item in capture.commands.items()
            },
        }
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: re.sub(r"\d+", "9" * 5000, text), id="endless-numbers"),
        pytest.param(lambda text: re.sub(r"\d", "²", text), id="digits-that-are-none"),
        pytest.param(lambda text: re.sub(r"\d", "٣", text), id="digits-of-another-script"),
        pytest.param(lambda text: text[: len(text) // 2], id="cut-in-half"),
        pytest.param(lambda text: "\x1b]0;owned\x07\x1b[2J" + text.replace(" ", " \x9b31m"), id="terminal-escapes"),
        pytest.param(lambda text: text.replace("\n", "\0"), id="nul"),
        pytest.param(lambda _: "", id="empty"),
        pytest.param(lambda text: " ".join(reversed(text.split())), id="words-reversed"),
        pytest.param(lambda _: "[1, 2, 3]", id="json-of-another-shape"),
        pytest.param(
            lambda _: '{"runtimes": [1], "Runtimes": 5, "default-runtime": ["x"], "ServerVersion": 7}', id="wrong-types"
        ),
        pytest.param(lambda text: text.replace("\n", " ") * 50, id="one-long-line"),
        pytest.param(lambda text: text.replace("/", "/../"), id="paths-with-dots"),
    ],
)
def test_no_text_of_a_host_breaks_the_diagnosis(change: Callable[[str], str]) -> None:
    """Whatever a host says, there is a diagnosis, its screen has no control characters, and its JSON can be written."""
    for capture in HOSTS:
        diagnosis = look(changed(capture, change))

        assert CONTROL.search(diagnosis_text(diagnosis)) is None
        assert json.loads(json.dumps(diagnosis_json(diagnosis)))["host"] == capture.host


def test_escapes_do_not_reach_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not from the host's name, not from a path, not from a line that is evidence."""
    evil = "\x1b]2;owned\x07"
    rig = Rig(commands={"dmesg": f"[1.0] NVRM: Xid (PCI:0000:01:00): 79, {evil}GPU has fallen off the bus.\n"})
    path = tmp_path / "evil.json"
    path.write_text(dump_capture(rig.capture(f"rig{evil}")))

    assert main(["doctor", "--capture", str(path)]) == 1
    out = capsys.readouterr().out
    assert "has fallen off the bus" in out
    assert "\x1b" not in out
    assert "\x07" not in out


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b'{"format": 1, "host": "x", "files": {"/etc/', "line 1", id="truncated"),
        pytest.param(bytes(range(256)) * 50, "it is no text", id="binary"),
        pytest.param(b"format: 1\nhost: !!python/object/apply:os.system ['true']\n", "constructor", id="yaml-tag"),
        pytest.param(b"a: &a [x]\nb: *a\n", "aliases", id="yaml-alias"),
        pytest.param(b"[" * 2000, "nest", id="deep"),
        pytest.param(b"", "no mapping", id="empty"),
    ],
)
def test_a_file_that_is_no_capture_is_said_so(
    content: bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line that names the file; exit code 3."""
    path = tmp_path / "bad.json"
    path.write_bytes(content)

    code = main(["doctor", "--capture", str(path)])

    error = capsys.readouterr().err
    assert code == 3
    assert str(path) in error
    assert reason in error
    assert "Traceback" not in error


def test_a_file_of_200_mb_is_refused_unread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not taken into memory to find that out."""
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(200 << 20)

    assert main(["doctor", "--capture", str(path)]) == 3
    assert "larger than 50 MiB" in capsys.readouterr().err


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder of captures the good ones are diagnosed; the exit code says that one was not."""
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text(dump_capture(Rig().capture("rig-02")))

    code = main(["doctor", "--capture", str(tmp_path)])

    captured = capsys.readouterr()
    assert code == 3
    assert "rig-02  nothing is wrong" in captured.out
    assert "a.json cannot be used as a capture" in captured.err
