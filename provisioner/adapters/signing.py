"""The operator's Ed25519 key: made on first use, kept with mode 0600, in the formats that ssh-keygen reads.

It signs enrolment records. It is no login key and never leaves this machine. Colleagues' public keys stand in
`trusted_keys` beside it, one line each as in `signing.pub`, so that a fleet can have more than one operator.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from provisioner.errors import BadInput
from provisioner.model.enrolment import EnrolmentRecord

KEY = "signing"
PUBLIC = "signing.pub"
TRUSTED = "trusted_keys"


def config_dir() -> Path:
    """`$PROVISION_CONFIG_DIR`, else `provision` in the XDG configuration folder (`~/.config/provision`)."""
    chosen = os.environ.get("PROVISION_CONFIG_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "provision"


def fingerprint(key: Ed25519PublicKey) -> str:
    """`SHA256:…`, the same text as `ssh-keygen -lf signing.pub` prints."""
    blob = base64.b64decode(_public_line(key).split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _public_line(key: Ed25519PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


class Signer:
    """Signs with the operator's key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key()
        self.fingerprint = fingerprint(self.public_key)

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


def load_or_make(folder: Path | None = None) -> Signer:
    """Return the signer of this operator, with a new key when there is none yet.

    Raises BadInput when the key is readable by others, or is not an Ed25519 key without a passphrase.
    """
    path = (folder or config_dir()) / KEY
    if not path.exists():
        _make(path)
    return Signer(_load(path))


def _make(path: Path) -> None:
    """Write a whole new key, then give it its name; whoever was first wins, so two runs end with one key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    fresh = path.with_name(f".{KEY}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    try:
        os.link(fresh, path)
        path.with_name(PUBLIC).write_text(_public_line(key.public_key()) + " provision\n", encoding="utf-8")
    except FileExistsError:
        return  # another run was first; its key is the operator's
    finally:
        fresh.unlink()


def _load(path: Path) -> Ed25519PrivateKey:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise BadInput(
            "signing-key-open",
            f"the signing key {path} can be read by others (mode {mode:04o}); it was not used",
            hint=f"if nobody else had access: chmod 600 {path}; else remove it, and verify and enrol the hosts anew",
        )
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput("signing-key-unreadable", f"the signing key {path} cannot be read: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput("signing-key-unreadable", f"the signing key {path} is not an Ed25519 key")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Return the key of a `signing.pub`. Raises BadInput when the file holds no Ed25519 public key."""
    try:
        key = serialization.load_ssh_public_key(path.read_bytes())
    except OSError as error:
        raise BadInput("public-key-unreadable", f"{path}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(
            "public-key-unreadable",
            f"{path} is not an Ed25519 public key",
            hint="it is the operator's signing.pub: ssh-ed25519 AAAA… name",
        )
    return key


def verify_record(record: EnrolmentRecord, public_key: Ed25519PublicKey) -> bool:
    """Whether the record was signed with this key and has not been altered since."""
    if record.key != fingerprint(public_key):
        return False
    try:
        public_key.verify(base64.b64decode(record.signature, validate=True), record.signed_bytes)
    except (InvalidSignature, ValueError):
        return False
    return True


def trusted_lines(folder: Path | None = None) -> str:
    """The public keys whose records this operator trusts, a line each, the own one first: for the hosts' gates."""
    place = folder or config_dir()
    lines = [_public_line(load_or_make(place).public_key)]
    lines += [_public_line(key) for key in _known_keys(place).values()]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


class OneKey:
    """The Signatures of a third party, who trusts the one public key in a file."""

    def __init__(self, path: Path) -> None:
        self._key = read_public_key(path)

    def verifies(self, record: EnrolmentRecord) -> bool | None:
        """True or False for this key, None for another."""
        return verify_record(record, self._key) if record.key == fingerprint(self._key) else None


class Keyring:
    """The public keys that this operator trusts: the own one, and those in `trusted_keys`."""

    def __init__(self, folder: Path | None = None) -> None:
        self._keys = _known_keys(folder or config_dir())

    def verifies(self, record: EnrolmentRecord) -> bool | None:
        """True or False for a key that is known, None for one that is not."""
        key = self._keys.get(record.key)
        return None if key is None else verify_record(record, key)


def _known_keys(folder: Path) -> dict[str, Ed25519PublicKey]:
    keys: dict[str, Ed25519PublicKey] = {}
    if (folder / KEY).exists():
        own = _load(folder / KEY).public_key()
        keys[fingerprint(own)] = own
    with contextlib.suppress(FileNotFoundError):
        lines = (folder / TRUSTED).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                key = serialization.load_ssh_public_key(line.encode())
            except (ValueError, UnsupportedAlgorithm):
                key = None
            if not isinstance(key, Ed25519PublicKey):
                raise BadInput(
                    "trusted-key-unreadable",
                    f"{folder / TRUSTED}:{number} is not an Ed25519 public key",
                    hint="a line is what the colleague's signing.pub holds: ssh-ed25519 AAAA… name",
                )
            keys[fingerprint(key)] = key
    return keys
