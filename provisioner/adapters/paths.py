"""How hosts are reached once a tunnel carries them: `.provision/tunnels/<host>.json`, and what it makes of a host.

A file here is written when a change was confirmed over the tunnel, or a host joined by invitation. Without it a host is
reached as the inventory says. The hub is the way in: ssh asks it to connect onwards (`-W`), and no packet of the
operator's machine has to be routed into the tunnel.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from provisioner.adapters import ssh
from provisioner.errors import BadInput, HostError
from provisioner.model.inventory import InventoryHost
from provisioner.model.stack import HostLock
from provisioner.model.tunnel import TunnelLock

FOLDER = Path(".provision") / "tunnels"
_FRESH = "-o ControlMaster=no -o ControlPath=none -o ConnectTimeout=5"


def overlaid(host: InventoryHost, folder: Path = FOLDER) -> InventoryHost:
    """The host as its confirmed tunnel reaches it; as it is when it has none, or wants to be reached directly."""
    if host.intent.tunnel.kind == "none" or host.intent.tunnel.reach == "direct":
        return host
    try:
        variables = json.loads(_file(folder, host.name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return host
    except (OSError, ValueError) as problem:
        raise BadInput(
            "tunnel-path-not-valid",
            f"{_file(folder, host.name)} cannot be read: {problem}",
            hint="remove it: the host is then reached as the inventory says",
        ) from problem
    return with_path(host, variables)


def with_path(host: InventoryHost, path: Mapping[str, Any]) -> InventoryHost:
    """The host with the way through the tunnel put before its own connection arguments."""
    common = " ".join(
        str(a) for a in (path.get("ansible_ssh_common_args"), host.variables.get("ansible_ssh_common_args")) if a
    )
    way = {**path, "ansible_ssh_common_args": common}
    return replace(host, variables={**host.variables, **way}, path=way)


def forget(host: str, folder: Path = FOLDER) -> None:
    """From now on the host is reached as the inventory says."""
    _file(folder, host).unlink(missing_ok=True)


def _file(folder: Path, host: str) -> Path:
    return folder / f"{quote(host, safe='')}.json"


class TunnelPaths:
    """The Paths of the command line. `host_named` finds a hub in the inventory, as it is reached itself."""

    def __init__(self, host_named: Callable[[str], InventoryHost | None], folder: Path = FOLDER) -> None:
        self._host_named = host_named
        self._folder = folder

    def new(self, host: InventoryHost, entry: HostLock) -> InventoryHost:
        """The host over the path that its lock entry names, on a connection of its own."""
        way = self.way(host, entry.tunnel)
        reached = with_path(host, way) if way else host
        args = f"{_FRESH} {reached.variables.get('ansible_ssh_args') or ''}".strip()
        return replace(reached, variables={**reached.variables, "ansible_ssh_args": args})

    def keep(self, host: InventoryHost, entry: HostLock) -> None:
        """Write the way down, or forget an old one when the lock entry has none any more."""
        way = self.way(host, entry.tunnel)
        if not way:
            if entry.tunnel is None or entry.tunnel.kind == "none":
                forget(host.name, self._folder)
            return
        self.write(host.name, way)

    def write(self, host: str, way: Mapping[str, Any]) -> None:
        """Put a way on record."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = _file(self._folder, host)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(dict(way), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        fresh.replace(path)

    def way(self, host: InventoryHost, lock: TunnelLock | None, alias: str | None = None) -> dict[str, Any]:
        """The connection variables of the tunnel; empty where the inventory's own way stays in force.

        The host key is looked for under the name that it has on record now (`alias`: under another).
        """
        if (
            lock is None
            or lock.role != "spoke"
            or lock.kind not in ("wireguard", "nebula", "ssh-reverse")
            or host.intent.tunnel.reach == "direct"
            or ssh.Target.from_variables(host.name, host.variables).local
        ):
            return {}
        from provisioner.adapters.hostkeys import recorded_name

        known = alias or recorded_name(ssh.Target.from_variables(host.name, host.variables))
        args = ["-o", f"HostKeyAlias={known}", "-o", f"ProxyCommand={self._onwards(host.name, lock.hub or '')}"]
        way: dict[str, Any] = {"ansible_host": lock.address, "ansible_ssh_common_args": shlex.join(args)}
        if lock.kind == "ssh-reverse":
            way["ansible_port"] = lock.port
        elif "ansible_port" in host.path and lock.admit:
            way["ansible_port"] = int(lock.admit[0].partition("/")[2])  # not that of a reverse tunnel of before
        return way

    def _onwards(self, host: str, hub: str) -> str:
        """The command that connects through the hub; `none` when this machine is the hub itself."""
        found = self._host_named(hub)
        if found is None:
            raise HostError(
                "tunnel-hub-not-found",
                host,
                f"{host} is reached through {hub}, which is not in the inventory",
                hint=f"add {hub} to the inventory that is given with -i",
            )
        target = ssh.Target.from_variables(found.name, found.variables)
        if target.local:
            return "none"
        argv = ssh.ssh_argv(target)
        # Without the shared socket: its %C would be filled in for the far host, and an open way outlives a change.
        words: list[str] = []
        for word in argv[:-1]:
            if word.startswith(("ControlMaster=", "ControlPersist=", "ControlPath=")):
                words.pop()
            else:
                words.append(word)
        return shlex.join([*words, "-W", "[%h]:%p", argv[-1]])
