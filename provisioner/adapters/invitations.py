"""Makes the secrets of an invitation, finds the operator's own key, and writes the file that is handed on."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets as random
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provisioner.adapters.ssh import Target
from provisioner.errors import BadInput
from provisioner.tunnels.invite import Secrets

DIGITS = 8
_USUAL = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")


def make_secrets() -> Secrets:
    """A fresh id, code and door key; nothing of it is kept on this machine but in the file that is handed on."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    code = f"{random.randbelow(10**DIGITS):0{DIGITS}d}"
    salt = base64.b64encode(random.token_bytes(16)).decode()
    raw = hashlib.pbkdf2_hmac("sha256", code.encode(), base64.b64decode(salt), 200000)
    return Secrets(
        id=random.token_hex(16),
        code=code,
        salt=salt,
        code_digest=base64.b64encode(raw).decode(),
        door_private=private.decode(),
        door_public=public.decode(),
    )


def operator_keys(target: Target, named: Path | None) -> tuple[str, ...]:
    """The public keys that the rig is to let in: the named file, else that of the inventory's key, else the usual."""
    if named is not None:
        return (_read(named),)
    if target.key_file is not None:
        beside = Path(f"{target.key_file}.pub")
        if beside.is_file():
            return (_read(beside),)
        done = subprocess.run(
            ["ssh-keygen", "-y", "-P", "", "-f", target.key_file],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return (done.stdout.strip(),)
    found = [Path.home() / ".ssh" / name for name in _USUAL]
    there = next((path for path in found if path.is_file()), None)
    if there is None:
        raise BadInput(
            "invite-no-key",
            "no public ssh key of yours was found for the rig to let in",
            context=[str(path) for path in found],
            hint="ssh-keygen -t ed25519, or name one: provision invite HOST --key FILE.pub",
        )
    return (_read(there),)


def _read(path: Path) -> str:
    try:
        words = path.read_text(encoding="utf-8").split()
    except OSError as problem:
        raise BadInput("invite-no-key", f"{path}: {problem.strerror}") from problem
    if len(words) < 2 or not words[0].startswith(("ssh-", "ecdsa-", "sk-")) or "PRIVATE" in words:
        raise BadInput("invite-no-key", f"{path} is no public ssh key", hint="name the file that ends in .pub")
    return " ".join(words[:3])


def write_invitation(path: Path, text: str) -> None:
    """Write the file for its reader alone; one that is there already is not written over."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as problem:
        raise BadInput(
            "invite-file-exists", f"{path} is there already", hint="remove it, or name another file with -o FILE"
        ) from problem
    except OSError as problem:
        raise BadInput("invite-not-written", f"{path}: {problem.strerror}") from problem
