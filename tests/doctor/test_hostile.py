"""Captures that are broken, enormous or hostile: a clear error or a safe screen, never a traceback, never an escape."""

from __future__ import annotations

import json
import os
import re
import time
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
NEEDED = (  # hosts whose files and NVML reach the facts that read JSON and numbers of their own
    "a-card-came-back-from-cleaning-with-eight-lanes",
    "rows-were-replaced-since-october",
    "a-spec-written-while-a-card-was-away",
    "akashs-provider-tells-of-two-nodes-and-none-here",
    "a-tenants-container-runs-since-before-the-change",
    "the-image-of-the-other-kernel-is-stale",
    "a-tunnel-that-loses-a-third",
    "a-timer-of-the-tunnel-that-was-stopped",
    "heat-says-nvml-alone",
)
HOSTS = [
    *(failure(name) for name in sorted(EXPECTED)[::3]),
    *(v.capture for v in list(VARIANTS.values())[::4]),
    *(VARIANTS[name].capture for name in NEEDED),
]
# What reorders or hides letters on a screen without being a control character.
INVISIBLE = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


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
        pytest.param(lambda _: "inf\n", id="infinity"),
        pytest.param(lambda _: "nan\n", id="no-number"),
        pytest.param(lambda _: "-1e400\n", id="beyond-numbers"),
        pytest.param(
            lambda _: (
                '{"at": 1e400, "peers": [{"host": 5, "loss_pct": 1e400, "handshake": -1e400}], "lowered_at": [],'
                ' "routes": {"x": 1e400}, "cards": {"GPU-0": {"slot": 5, "width": 1e400, "rows": [1], "since": {}}},'
                ' "cluster": {"inventory": {"available": {"nodes": [{"name": "x", "allocatable": 5}, 7]}}}, "state": 5}'
            ),
            id="json-of-the-right-shape-with-wrong-values",
        ),
        pytest.param(lambda text: "\u202e" + text.replace(" ", " \u2066"), id="letters-turned-round"),
    ],
)
def test_no_text_of_a_host_breaks_the_diagnosis(change: Callable[[str], str]) -> None:
    """Whatever a host says, there is a diagnosis, its screen has no control characters, and its JSON can be written."""
    for capture in HOSTS:
        diagnosis = look(changed(capture, change))

        assert CONTROL.search(diagnosis_text(diagnosis)) is None
        assert INVISIBLE.search(diagnosis_text(diagnosis)) is None
        assert json.loads(json.dumps(diagnosis_json(diagnosis), allow_nan=False))["host"] == capture.host


@pytest.mark.parametrize(
    "value",
    [None, "x", "", [], {}, [1], {"a": 1}, True, -1, 10**30, 1e308, float("inf"), float("nan"), "\x1b[2J"],
    ids=repr,
)
def test_no_answer_of_nvml_breaks_the_diagnosis(value: object) -> None:
    """Whatever stands in the place of each number, name and list that NVML gives."""
    for name in NEEDED[:2]:
        capture = VARIANTS[name].capture
        nvml = dict(capture.nvml or {})
        devices = [dict(item) for item in nvml.get("devices", [])]
        odd = [
            *({**nvml, key: value} for key in nvml),
            *({**nvml, "devices": [{**device, key: value} for device in devices]} for key in devices[0]),
            {**nvml, "devices": [value, *devices]},
            {"error": value},
        ]
        for answer in odd:
            diagnosis = look(capture.model_copy(update={"nvml": answer}))

            assert CONTROL.search(diagnosis_text(diagnosis)) is None
            assert json.loads(json.dumps(diagnosis_json(diagnosis), allow_nan=False))["host"] == capture.host


@pytest.mark.parametrize(
    "text", ["\n" * 30_000, " \n" * 15_000, "{" * 30_000, '"\n' * 10_000], ids=lambda text: repr(text[:2])
)
def test_long_texts_cost_time_by_their_length_and_not_by_its_square(text: str) -> None:
    """Blank lines that an expression would run over from each of their beginnings took minutes once."""
    for name in NEEDED[:1]:
        began = time.monotonic()
        look(changed(VARIANTS[name].capture, lambda _: text))

        assert time.monotonic() - began < 20  # about one second on an idle machine


def test_halves_of_characters_do_not_break_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON can write them, and no terminal or file can take them."""
    path = tmp_path / "half.json"
    text = dump_capture(
        Rig(commands={"dmesg": "NVRM: Xid (PCI:0000:01:00): 79, HALF fallen off the bus\n"}).capture("rig")
    )
    path.write_text(text.replace("HALF", "\\ud83d").replace('"rig"', '"rig\\udc00"'))

    assert main(["doctor", "--capture", str(path)]) == 1
    assert main(["doctor", "--json", "--capture", str(path)]) == 1
    out = capsys.readouterr().out
    assert "79, ? fallen off the bus" in out
    assert "rig?" in out


def test_a_host_s_name_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name with a line in it cannot say that another host is well."""
    path = tmp_path / "evil.json"
    path.write_text(dump_capture(Rig().capture("rig-01\nrig-02  nothing is wrong")))

    main(["doctor", "--capture", str(path)])
    assert not any(line.startswith("rig-02") for line in capsys.readouterr().out.splitlines())


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
        pytest.param(b'{"a":' * 100_000, "nest", id="deep-json"),
        pytest.param(b"a:\n" + b"".join(b" " * n + b"- \n" for n in range(1, 200)), "nest", id="deep-yaml-lists"),
        pytest.param(b'{"format": ' + b"9" * 10_000 + b"}", "digits", id="a-number-without-end"),
        pytest.param(b'host: "x\\ud800"\n', "line 1", id="half-a-character"),
        pytest.param(b'{"format": 1, "host": ["x"]}', "host", id="wrong-type"),
        pytest.param(b'{"format": 2}', "format", id="another-format"),
        pytest.param(
            b'{"format": 1, "host": "x", "taken_at": "2026-11-24T03:07:00Z", "probe": "1",'
            b' "commands": {"x": {"rc": 1e400}}}',
            "commands.x.rc",
            id="infinite-code",
        ),
        pytest.param(b"\x1f\x8b\x08\0" + b"\0" * 100, "it is no text", id="compressed"),
        pytest.param("host: x".encode("utf-16"), "it is no text", id="utf-16"),
        pytest.param(b"? [a]\n: b\n", "found", id="a-list-as-a-key"),
        pytest.param(b"!!binary aGk=\n", "no mapping", id="yaml-binary"),
        pytest.param(b"<<: 5\nhost: x\n", "mapping", id="yaml-merge"),
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
    assert max(map(len, error.splitlines())) < 400


def test_a_file_of_200_mb_is_refused_unread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not taken into memory to find that out."""
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(200 << 20)

    assert main(["doctor", "--capture", str(path)]) == 3
    assert "larger than 50 MiB" in capsys.readouterr().err


def test_200_mb_of_json_are_refused_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real text, not holes: as much as the limit is read, and no more."""
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.write(b'{"format": 1, "host": "x", "files": {"/etc/x": "')
        for _ in range(200):
            file.write(b"x" * (1 << 20))
        file.write(b'"}}')

    assert main(["doctor", "--capture", str(path)]) == 3
    assert "larger than 50 MiB" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "pipe", "nothing", "loop", "dangling"])
def test_what_is_no_plain_file_is_said_so(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe that nobody writes to must not be waited for."""
    path = tmp_path / "odd.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "gone")
    code = main(["doctor", "--capture", str(path)])
    captured = capsys.readouterr()

    assert code == (0 if kind == "folder" else 3)
    assert "Traceback" not in captured.err
    assert kind == "folder" or str(path) in captured.err


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder of captures the good ones are diagnosed; the exit code says that one was not."""
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text(dump_capture(Rig().capture("rig-02")))

    code = main(["doctor", "--capture", str(tmp_path)])

    captured = capsys.readouterr()
    assert code == 3
    assert "rig-02  nothing is wrong" in captured.out
    assert "a.json cannot be used as a capture" in captured.err
