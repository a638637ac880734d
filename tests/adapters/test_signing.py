"""The operator's key is made once, kept private, and tells a signed record from an altered one."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from provisioner.adapters.signing import (
    Keyring,
    Signer,
    config_dir,
    fingerprint,
    load_or_make,
    trusted_lines,
    verify_record,
)
from provisioner.errors import BadInput
from provisioner.model.enrolment import Binding, EnrolledStack, EnrolmentRecord, canonical, read_record
from tests.enrolments import record
from tests.world import WHEN


def signed(signer: Signer) -> EnrolmentRecord:
    made = record(key=signer.fingerprint)
    return made.model_copy(update={"signature": base64.b64encode(signer.sign(made.signed_bytes)).decode()})


def test_the_key_is_made_on_first_use_and_only_then(tmp_path: Path) -> None:
    """Mode 0600 in a folder of mode 0700, and the same key ever after."""
    folder = tmp_path / "provision"
    first = load_or_make(folder)

    assert (folder / "signing").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert load_or_make(folder).fingerprint == first.fingerprint
    assert sorted(path.name for path in folder.iterdir()) == ["signing", "signing.pub"]


def test_the_fingerprint_is_that_of_ssh_keygen(tmp_path: Path) -> None:
    """So that it can be compared with a tool that everybody has."""
    signer = load_or_make(tmp_path)
    printed = subprocess.run(
        ["ssh-keygen", "-lf", tmp_path / "signing.pub"], capture_output=True, text=True, check=True
    ).stdout

    assert printed.split()[1] == signer.fingerprint


def test_a_signed_record_verifies_after_a_round_trip(tmp_path: Path) -> None:
    """Through the text of a file and back, it is the same statement."""
    signer = load_or_make(tmp_path)
    back = read_record(signed(signer).text)

    assert back is not None
    assert verify_record(back, signer.public_key)
    assert Keyring(tmp_path).verifies(back) is True


@pytest.mark.parametrize(
    "change",
    [
        {"host": "rig-02"},
        {"lock_digest": "sha256:9"},
        {"matrix_digest": "9"},
        {"run": "r9"},
        {"checks": ()},
        {"enrolled_at": WHEN.replace(year=2030)},
        {"expires_at": WHEN.replace(year=2030)},
        {"bound_to": Binding(machine="00", host_key=None)},
        {"stack": EnrolledStack(driver="535.216.03", flavour="open")},
        {"networks": {}},
        {"signature": "AAAA"},
        {"signature": "not base64"},
        {"signature": ""},
    ],
    ids=lambda change: "-".join(map(str, change)),
)
def test_an_altered_record_does_not_verify(tmp_path: Path, change: dict[str, object]) -> None:
    """Every field is under the signature."""
    signer = load_or_make(tmp_path)

    assert not verify_record(signed(signer).model_copy(update=change), signer.public_key)


def test_a_key_that_is_not_known_is_neither_true_nor_false(tmp_path: Path) -> None:
    """Another operator's record is unknown until their public key is trusted."""
    other = load_or_make(tmp_path / "other")
    load_or_make(tmp_path / "mine")
    foreign = signed(other)

    assert Keyring(tmp_path / "mine").verifies(foreign) is None
    (tmp_path / "mine" / "trusted_keys").write_text("# colleague\n" + (tmp_path / "other" / "signing.pub").read_text())
    assert Keyring(tmp_path / "mine").verifies(foreign) is True
    assert Keyring(tmp_path / "mine").verifies(foreign.model_copy(update={"run": "x"})) is False


def test_looking_makes_no_key(tmp_path: Path) -> None:
    """`provision status` on a new machine leaves it as it was."""
    Keyring(tmp_path / "none")

    assert not (tmp_path / "none").exists()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Whoever could read it can have signed anything."""
    load_or_make(tmp_path)
    (tmp_path / "signing").chmod(0o640)
    with pytest.raises(BadInput) as caught:
        load_or_make(tmp_path)

    assert caught.value.reference == "signing-key-open"
    assert "0640" in caught.value.message


@pytest.mark.parametrize("text", ["", "rubbish", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_a_key_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    """A broken file is bad input with its path, and is not replaced by a new key."""
    (tmp_path / "signing").write_text(text)
    (tmp_path / "signing").chmod(0o600)
    with pytest.raises(BadInput, match="signing"):
        load_or_make(tmp_path)

    assert (tmp_path / "signing").read_text() == text


def test_a_broken_line_in_trusted_keys_is_named(tmp_path: Path) -> None:
    """File and line, because somebody typed it."""
    (tmp_path / "trusted_keys").write_text("\nssh-rsa nonsense\n")
    with pytest.raises(BadInput, match="trusted_keys:2"):
        Keyring(tmp_path)


def test_where_the_key_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variable of the project first, then XDG."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("PROVISION_CONFIG_DIR", raising=False)
    assert config_dir() == tmp_path / "provision"

    monkeypatch.setenv("PROVISION_CONFIG_DIR", str(tmp_path / "x"))
    assert config_dir() == tmp_path / "x"


def test_equal_values_have_one_spelling() -> None:
    """Order and spaces of the input leave no trace."""
    assert canonical({"b": 1, "a": "é"}) == canonical({"a": "é", "b": 1}) == b'{"a":"\\u00e9","b":1}'


def test_hosts_are_told_every_trusted_key_once(tmp_path: Path) -> None:
    """The own key first, then the colleagues'."""
    mine, other = load_or_make(tmp_path / "mine"), load_or_make(tmp_path / "other")
    line = (tmp_path / "other" / "signing.pub").read_text()
    (tmp_path / "mine" / "trusted_keys").write_text(line + line)
    lines = trusted_lines(tmp_path / "mine").splitlines()

    assert [fingerprint(serialization.load_ssh_public_key(text.encode())) for text in lines] == [  # type: ignore[arg-type]
        mine.fingerprint,
        other.fingerprint,
    ]
