"""The script that travels: reads what is there, hides secrets, and never hangs with a host."""

from __future__ import annotations

import json
import os
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.probe import script

NOTHING: dict[str, Any] = {
    "files": [],
    "listings": [],
    "folders": [],
    "links": [],
    "stats": [],
    "disks": [],
    "devices": [],
    "commands": [],
    "width": 4,
}


def ask(**wanted: Any) -> dict[str, Any]:
    """Observe with this request; what it does not name is not asked."""
    return script.observe({**NOTHING, **wanted})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_encodes_as_json_does(value: Any) -> None:
    """The little encoder gives JSON that json reads back, control characters and lone surrogates included."""
    assert json.loads(script.encode(value)) == value


@given(st.text("ab.-*", min_size=1, max_size=8), st.text("ab.-", min_size=1, max_size=8))
def test_matches_as_a_shell_does(pattern: str, name: str) -> None:
    """A star matches as in a shell: any text, but no leading dot."""
    hidden = name.startswith(".") and not pattern.startswith(".")

    assert script.matches(name, pattern) == (fnmatchcase(name, pattern) and not hidden)


def test_file_states_are_told_apart(tmp_path: Path) -> None:
    """Text is read, an absent file is null, and what cannot be read as a plain file is not mentioned."""
    (tmp_path / "text").write_text("a\nb")
    (tmp_path / "bytes").write_bytes(b"\xff\x00ok")
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_bytes(b"x" * (script.MAX_FILE + 1))
    os.mkfifo(tmp_path / "fifo")
    names = ("text", "bytes", "folder", "large", "fifo", "absent", "text/below")

    files = ask(files=[f"{tmp_path}/{name}" for name in names])["files"]

    assert files == {
        f"{tmp_path}/text": "a\nb",
        f"{tmp_path}/bytes": "\\xff\x00ok",
        f"{tmp_path}/absent": None,
        f"{tmp_path}/text/below": None,
    }


def test_pattern_keeps_what_it_matched(tmp_path: Path) -> None:
    """A pattern leaves a listing behind, so that "no such file" is known and not guessed."""
    for name in ("b.conf", "a.conf", "c.txt", ".hidden.conf"):
        (tmp_path / name).write_text(name)

    seen = ask(files=[f"{tmp_path}/*.conf", f"{tmp_path}/*.none"])

    assert seen["files"] == {f"{tmp_path}/a.conf": "a.conf", f"{tmp_path}/b.conf": "b.conf"}
    assert seen["commands"][f"ls -d {tmp_path}/*.conf"]["stdout"] == f"{tmp_path}/a.conf\n{tmp_path}/b.conf\n"
    assert seen["commands"][f"ls -d {tmp_path}/*.none"]["rc"] == 2
    assert "No such file" in seen["commands"][f"ls -d {tmp_path}/*.none"]["stderr"]


def test_links_are_followed_as_readlink_does(tmp_path: Path) -> None:
    """`readlink -f` prints an absent last name too, and nothing when a folder on the way is absent."""
    (tmp_path / "lib.so.1.2").write_text("")
    (tmp_path / "lib.so.1").symlink_to("lib.so.1.2")
    wanted = [f"{tmp_path}/lib.so.1", f"{tmp_path}/absent", f"{tmp_path}/no/where", f"{tmp_path}/lib*1"]

    commands = ask(links=wanted)["commands"]

    assert [commands[f"readlink -f {path}"]["stdout"] for path in wanted] == [
        f"{tmp_path}/lib.so.1.2\n",
        f"{tmp_path}/absent\n",
        "",
        f"{tmp_path}/lib.so.1.2\n",
    ]


def test_modes_and_owners_are_told(tmp_path: Path) -> None:
    """Mode, owner and kind as `stat` prints them."""
    made = tmp_path / "made"
    made.write_text("")
    made.chmod(0o640)
    me = os.popen("id -un; id -gn").read().split()

    commands = ask(stats=[str(made), str(tmp_path / "absent")])["commands"]

    assert commands[f"stat -c '%a %U:%G %F' {made}"]["stdout"] == f"640 {me[0]}:{me[1]} regular file\n"
    assert commands[f"stat -c '%a %U:%G %F' {tmp_path}/absent"]["rc"] == 1


def test_only_the_wanted_vendor_tells_more(tmp_path: Path) -> None:
    """All devices tell their vendor, NVIDIA's also their ids and the driver that holds them."""
    for slot, vendor in (("0000:00:1f.0", "0x8086\n"), ("0000:01:00.0", "0x10de\n")):
        (tmp_path / slot).mkdir()
        (tmp_path / slot / "vendor").write_text(vendor)
        (tmp_path / slot / "device").write_text("0x2204\n")

    seen = ask(devices=[[str(tmp_path), "0x10de", ["device", "class"]]])

    assert seen["files"] == {
        f"{tmp_path}/0000:00:1f.0/vendor": "0x8086\n",
        f"{tmp_path}/0000:01:00.0/vendor": "0x10de\n",
        f"{tmp_path}/0000:01:00.0/device": "0x2204\n",
        f"{tmp_path}/0000:01:00.0/class": None,
    }
    assert f"readlink -f {tmp_path}/0000:01:00.0/driver" in seen["commands"]


def command(line: str, limit: float = 10) -> list[Any]:
    return [line, ["/bin/sh", "-c", line], limit]


def test_commands_give_code_and_both_streams() -> None:
    """Exit code, stdout and stderr come back as they were; a program that is not there is 127."""
    missing = ["no-such-program -x", ["no-such-program", "-x"], 5]

    commands = ask(commands=[command("echo out; echo err >&2; exit 3"), missing])["commands"]

    assert commands["echo out; echo err >&2; exit 3"] == {"rc": 3, "stdout": "out\n", "stderr": "err\n"}
    assert commands["no-such-program -x"]["rc"] == 127


def test_command_that_hangs_is_stopped_with_its_children() -> None:
    """The time limit ends a command and what it started, and the others are not held up."""
    began = time.monotonic()

    commands = ask(commands=[command("echo early; sleep 60 & wait", 0.3), command("echo other")])["commands"]

    assert time.monotonic() - began < 5
    assert commands["echo early; sleep 60 & wait"]["rc"] == 124
    assert commands["echo early; sleep 60 & wait"]["stdout"] == "early\n"
    assert commands["echo other"]["stdout"] == "other\n"


def test_more_commands_than_places_all_run() -> None:
    """A bound on commands at a time drops none of them."""
    lines = [f"echo {number}" for number in range(9)]

    commands = ask(commands=[command(line) for line in lines], width=2)["commands"]

    assert [commands[line]["stdout"] for line in lines] == [f"{number}\n" for number in range(9)]


def test_output_is_bounded() -> None:
    """A command that floods is read to its end, but only so much of it is kept."""
    line = f"head -c {script.MAX_OUTPUT + 4_000_000} /dev/zero"

    answer = ask(commands=[command(line)])["commands"][line]

    assert answer["rc"] == 0
    assert len(answer["stdout"]) <= script.MAX_OUTPUT


def test_pipelines_do_not_complain_of_broken_pipes() -> None:
    """Python ignores SIGPIPE; the commands it starts must not."""
    line = "yes | head -1"

    assert ask(commands=[command(line)])["commands"][line] == {"rc": 0, "stdout": "y\n", "stderr": ""}


CALLS = "def ask(nvml):\n    return nvml.answer()\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def answer(): return {'devices': [1, 'ü']}", {"devices": [1, "ü"]}),
        ("import time\ndef answer(): time.sleep(60)", {"error": "timed-out"}),
        ("def answer(): raise ValueError('odd')", {"error": "probe-failed", "detail": "ValueError: odd"}),
        ("import os\ndef answer(): os._exit(9)", {"error": "probe-failed", "detail": ""}),
    ],
)
def test_nvml_is_asked_in_a_child(source: str, expected: dict[str, Any]) -> None:
    """A library that hangs, raises or ends the process costs its answer, not the probe."""
    seen = ask(nvml=source, nvml_calls=CALLS, nvml_limit=0.5, commands=[command("echo on")])

    assert json.loads(script.encode(seen))["nvml"] == expected
    assert seen["commands"]["echo on"]["stdout"] == "on\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deb https://me:s3cret@mirror/debian x", "deb https://***@mirror/debian x"),
        ("http://token@host/ http://plain/ a@b", "http://***@host/ http://plain/ a@b"),
        ('{"http-proxy": "http://u:p@h:3128"}', '{"http-proxy": "http://***@h:3128"}'),
        ("[Interface]\nPrivateKey = abc=\nPort = 1", "[Interface]\nPrivateKey = ***\nPort = 1"),
        ("PresharedKey=abc\n", "PresharedKey=***\n"),
        ('{"auth_token": "abc", "x": 1}', '{"auth_token": "***", "x": 1}'),
        ("password_pbkdf2 root grub.pbkdf2.sha512.1", "password_pbkdf2 ***"),
        (
            "a\n-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\nb",
            "a\n[private key removed]\nb",
        ),
        ("passwd\t1:4.13\tii \n", "passwd\t1:4.13\tii \n"),
        ('{"token": "a", "my_secret": "b", "c": 1}', '{"token": "***", "my_secret": "***", "c": 1}'),
        ("libpassword-perl\t1.0\tii \n", "libpassword-perl\t1.0\tii \n"),
        ('{"Authorization":null,"Runtimes":{"runc":1}}', '{"Authorization":null,"Runtimes":{"runc":1}}'),
        ('{"tokens": [], "token": "a"}', '{"tokens": [], "token": "***"}'),
        ("password: nullified", "password: ***"),
        ("ssl_certificate_key /etc/x", "ssl_certificate_key /etc/x"),
    ],
)
def test_secrets_stay_on_the_host(text: str, expected: str) -> None:
    """Logins in addresses, keys and passwords are taken out before anything leaves the host."""
    assert script.without_secrets(text) == expected


def test_files_that_lost_a_secret_are_named(tmp_path: Path) -> None:
    """Whoever would write such a text back must be able to tell."""
    (tmp_path / "plain").write_text("{}")
    (tmp_path / "proxy").write_text('{"proxies": {"http-proxy": "http://u:p@h:3128"}}')

    seen = ask(files=[f"{tmp_path}/plain", f"{tmp_path}/proxy"])

    assert seen["redacted"] == [f"{tmp_path}/proxy"]
    assert ask(files=[f"{tmp_path}/plain"])["redacted"] == []


@given(st.text("ab:/@ \n\"'=k", max_size=60))
def test_text_without_secrets_is_unchanged(text: str) -> None:
    """What holds neither an address with a login nor a secret's name travels as it is."""
    cleaned = script.without_secrets(text)

    assert cleaned == text or "***" in cleaned


def test_the_record_of_a_change_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock entry has a key `secrets`, which says where they come from: without the rest nothing could go back."""
    text = json.dumps({"from": {"entry": {"intent": {"secrets": [{"name": "hotkey"}], "toolkit": "auto"}}}})
    record = tmp_path / "history" / "r1" / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text(text)
    other = tmp_path / "other.json"
    other.write_text(text)
    monkeypatch.setattr(script, "RECORDS", f"{tmp_path}/history/")
    found: dict[str, str | None] = {}
    script.read_file(str(record), found)
    script.read_file(str(other), found)

    assert found[str(record)] == text
    assert found[str(other)] != text
