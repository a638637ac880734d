"""`provision capture` writes one file that is free of secrets, wherever they were planted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioner.cli.main import main
from provisioner.doctor.scrub import scrub, without_secrets
from provisioner.facts.files import dump_capture, parse_capture
from provisioner.probe import script
from tests.doctor.hosts import Rig
from tests.doctor.world import look

KEY = "MIIEvgIBADANBgkqhkiG9w0BAQEFAASC"
PLANTED = {
    "a login in an address": ("deb https://apt:hunter2hunter2@mirror.example/debian bookworm main\n", "hunter2hunter2"),
    "a password of a setting": ('{"registry-password": "correct-horse-battery"}\n', "correct-horse-battery"),
    "an environment's token": ("MINER_TOKEN=tok-9f8e7d6c5b4a3210\n", "tok-9f8e7d6c5b4a3210"),
    "a wireguard key": ("PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n", "yAnz5TF+lXXJte14tji3zlMNq"),
    "a wireguard preshared key": ("PresharedKey = FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=\n", "FpCyhws9cxwWoV4x"),
    "a private key block": (f"-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----\n", KEY),
    "an OpenSSH key cut short": (f"-----BEGIN OPENSSH PRIVATE KEY-----\n{KEY}\n", KEY),
    "a web token": (
        "auth eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N\n",
        "dozjgNryP4J3jVmNHl0w5N",
    ),
    "a bearer header": ("Authorization: Bearer abcdef0123456789abcdef0123456789\n", "abcdef0123456789abcdef"),
    "a login of a registry": (
        '{"auths": {"nvcr.io": {"auth": "JG9hdXRodG9rZW46c2VjcmV0c2VjcmV0"}}}\n',
        "JG9hdXRodG9rZW46c2Vj",
    ),
    "a key of a code host": ("remote: ghp_16C7e42F292c6912E7710c838347Ae178B4a\n", "ghp_16C7e42F292c6912E7710c"),
    "a key of a model hub": ("HF_HOME=/x login hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345\n", "hf_AbCdEfGhIjKlMnOpQrSt"),
    "a key of a cloud": ("aws AKIAIOSFODNN7EXAMPLE region\n", "AKIAIOSFODNN7EXAMPLE"),
    "its secret half": ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n", "wJalrXUtnFEMI"),
    "a line of netrc": ("machine repo.example login me password s3cr3t-s3cr3t\n", "s3cr3t-s3cr3t"),
    "an option of a program": ("ExecStart=/opt/agent --api-key=0123456789abcdef0123 --gpu\n", "0123456789abcdef0123"),
    "a wallet's phrase": (
        "mnemonic: legal winner thank year wave sausage worth useful legal winner thank yellow\n",
        "winner thank year wave sausage",
    ),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_secret_is_taken_out(kind: str) -> None:
    """Whatever kind it is of."""
    text, secret = PLANTED[kind]

    cleaned, count = without_secrets(text)

    assert secret not in cleaned
    assert count >= 1


def test_a_file_for_others_has_none_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Planted in files, in output, in errors and in a command line; the written file has not one."""
    texts = [text for text, _ in PLANTED.values()]
    rig = Rig(
        files={f"/etc/apt/sources.list.d/{number}.list": text for number, text in enumerate(texts)},
        commands={
            "docker logs agent": "".join(texts),
            "curl -H 'Authorization: Bearer abcdef0123456789abcdef0123456789' x": "".join(reversed(texts)),
        },
    )
    given, written = tmp_path / "given.json", tmp_path / "written.json"
    given.write_text(dump_capture(rig.capture()))

    assert main(["capture", "--capture", str(given), "-o", str(written)]) == 0

    text = written.read_text()
    assert [secret for _, secret in PLANTED.values() if secret in text] == []
    assert written.stat().st_mode & 0o077 == 0
    assert "secrets: none is left that was found" in capsys.readouterr().out


def test_what_is_taken_out_takes_no_evidence_along() -> None:
    """The same findings before and after."""
    rig = Rig(commands={"dmesg": "[1.0] NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.\n"})
    rig.files["/etc/apt/sources.list"] = "deb https://user:password1@mirror.example/ bookworm main\n"
    capture = rig.capture()
    clean, count = scrub(capture)

    assert count == 1
    assert clean.redacted == ("/etc/apt/sources.list",)
    before, after = look(capture), look(clean)
    assert [item.mechanism.id for item in before.findings] == [item.mechanism.id for item in after.findings]


def test_nothing_is_cut_from_a_healthy_look() -> None:
    """Package names, paths and versions are no secrets."""
    capture = Rig().capture()

    assert scrub(capture) == (capture, 0)


def test_the_host_itself_keeps_what_stands_behind_a_telling_name() -> None:
    """Before anything leaves it (provisioner/probe/script.py)."""
    for line in (
        "API_KEY=abc123abc123",
        "Authorization: Bearer abcdef",
        "mnemonic: legal winner",
        "passphrase = x1y2z3",
    ):
        assert script.without_secrets(line).endswith("***"), line


def test_a_capture_reads_as_one(tmp_path: Path) -> None:
    """What was written can be diagnosed."""
    given, written = tmp_path / "given.json", tmp_path / "written.json"
    given.write_text(dump_capture(Rig().capture()))
    main(["capture", "--capture", str(given), "-o", str(written)])

    assert look(parse_capture(written.read_bytes(), "x")).state == "clean"
    assert json.loads(written.read_text())["format"] == 1
