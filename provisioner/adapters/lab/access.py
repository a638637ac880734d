"""How people and tools get into a lab's hosts: its key, the recorded host keys, an Ansible inventory, an ssh config.

Everything stands in the lab's folder. What a user puts beside it (group_vars/, host_vars/) is never touched.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

USER = "operator"
GROUP = "lab"


@dataclass(frozen=True)
class Entry:
    """A host as it is reached: name, address, and its public host keys as `type base64`."""

    name: str
    address: str
    host_keys: tuple[str, ...]
    comment: str


def key_path(folder: Path) -> Path:
    return folder / "ssh" / "id_ed25519"


def ensure_key(folder: Path, lab: str) -> str:
    """Make the lab's own key once and return its public line."""
    path = key_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"provision lab {lab}", "-f", str(path)], check=True
        )
    return Path(f"{path}.pub").read_text().strip()


def write(folder: Path, entries: list[Entry]) -> Path:
    """Write known_hosts, ssh config and inventory; returns the inventory's path."""
    known = "".join(f"{e.name},{e.address} {key}\n" for e in entries for key in e.host_keys)
    _replace(folder / "ssh" / "known_hosts", known)
    _replace(folder / "ssh" / "config", ssh_config(folder, entries))
    inventory = folder / "inventory.yml"
    _replace(inventory, inventory_text(folder, entries))
    return inventory


def remove(folder: Path) -> None:
    """Remove what `write` and `ensure_key` made, and the folders that are then empty."""
    for path in ("inventory.yml", "ssh/config", "ssh/known_hosts", "ssh/id_ed25519", "ssh/id_ed25519.pub"):
        (folder / path).unlink(missing_ok=True)
    for place in (folder / "ssh", folder):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def inventory_text(folder: Path, entries: list[Entry]) -> str:
    """An ordinary YAML inventory; absolute paths, so that it works from any directory."""
    known = shlex.quote(f"UserKnownHostsFile={folder / 'ssh' / 'known_hosts'}")
    shared = {
        "ansible_user": USER,
        "ansible_become": True,
        "ansible_ssh_private_key_file": str(key_path(folder)),
        "ansible_ssh_common_args": f"-o {known} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    hosts: Mapping[str, object] = {e.name: {"ansible_host": e.address} for e in entries}
    body = yaml.safe_dump({GROUP: {"hosts": dict(hosts), "vars": shared}}, sort_keys=False, width=200)
    notes = "".join(f"#   {e.name}: {e.comment}\n" for e in entries)
    return f"# Hosts of a lab of `provision lab up`; written anew by each up. GPUs are simulated.\n{notes}{body}"


def ssh_config(folder: Path, entries: list[Entry]) -> str:
    """For plain ssh: `ssh -F FOLDER/ssh/config rig-01`."""
    blocks = [f"Host {e.name}\n    HostName {e.address}\n" for e in entries]
    shared = (
        "Host *\n"
        f"    User {USER}\n"
        f'    IdentityFile "{key_path(folder)}"\n'
        "    IdentitiesOnly yes\n"
        f'    UserKnownHostsFile "{folder / "ssh" / "known_hosts"}"\n'
        "    StrictHostKeyChecking yes\n"
    )
    return "# Written by `provision lab up`.\n" + "".join(blocks) + shared


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o600)
    temporary.replace(path)
