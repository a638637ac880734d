"""How hosts are reached once a tunnel carries them: the inventory's own way, or through their hub.

What is on record (path_files.py) was written when a change was confirmed over the tunnel, or when a host that joined by
invitation was taken in. The hub is the way in: ssh asks it to connect onwards (`-W`), and no packet of the operator's
machine has to be routed into the tunnel. How the hub is reached stands in the inventory alone, so it may move.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from provisioner.adapters import ssh
from provisioner.adapters.path_files import FOLDER, file_of, forget, store, stored
from provisioner.errors import BadInput, HostError
from provisioner.model.inventory import InventoryHost
from provisioner.model.stack import HostLock
from provisioner.model.tunnel import TunnelLock

CARRIES_SSH = ("wireguard", "nebula", "ssh-reverse")
CONNECT_S = 30
_FRESH = "-o ControlMaster=no -o ControlPath=none -o ConnectTimeout=5"


def overlaid(host: InventoryHost, folder: Path = FOLDER) -> InventoryHost:
    """The host as its confirmed tunnel reaches it; as it is when it has none, or wants to be reached directly.

    What it wants now counts, not what it had: a way that a change takes away is none to confirm that change by.
    """
    wish = host.intent.tunnel
    if wish.kind not in CARRIES_SSH or wish.role != "spoke" or wish.reach == "direct":
        return host
    try:
        known = stored(host.name, folder)
    except ValueError as problem:
        raise BadInput(
            "tunnel-path-not-valid",
            f"{file_of(host.name, folder)} cannot be read: {problem}",
            hint="remove it: the host is then reached as the inventory says",
        ) from problem
    return _through(host, known) if known else host


def _through(host: InventoryHost, known: Mapping[str, Any]) -> InventoryHost:
    """The host with the way through its hub put before its own connection arguments, for ssh takes what comes first."""
    onwards = _onwards(host, str(known["hub"]))
    # ssh names the socket of a shared connection after address and port, which many a tunnel has in common: whoever
    # knows two hubs with one range would be handed an open connection to the other one's rig, host key unasked.
    own = hashlib.sha1(json.dumps([host.name, dict(known), onwards], sort_keys=True).encode()).hexdigest()
    args = ["-o", f"HostKeyAlias={known['alias']}", "-o", f"ProxyCommand={onwards}"]
    # A line that loses a fifth of its packets each way takes its time to shake hands.
    args += ["-o", f"ControlPath={ssh.control_dir()}/{own}", "-o", f"ConnectTimeout={CONNECT_S}"]
    way: dict[str, Any] = {"ansible_host": known["address"]}
    if known.get("port"):
        way["ansible_port"] = known["port"]
    others = str(host.variables.get("ansible_ssh_common_args") or "")
    others = others.removeprefix(str(host.path.get("provision_args") or "")).strip()
    way["ansible_ssh_common_args"] = f"{shlex.join(args)} {others}".strip()
    return replace(
        host, variables={**host.variables, **way}, path={**way, "provision_args": shlex.join(args), **dict(known)}
    )


def _onwards(host: InventoryHost, hub: str) -> str:
    """The command that connects through the hub; `none` when this machine is the hub itself."""
    variables = host.hubs.get(hub)
    if variables is None:
        raise HostError(
            "tunnel-hub-not-found",
            host.name,
            f"{host.name} is reached through {hub}, which is not in the inventory",
            hint=f"add {hub} to the inventory that is given with -i",
        )
    target = ssh.Target.from_variables(hub, variables)
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


class TunnelPaths:
    """The Paths of the command line."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def new(self, host: InventoryHost, entry: HostLock) -> InventoryHost:
        """The host over the path that its lock entry names, on a connection of its own."""
        known = self.way(host, entry.tunnel)
        return self.fresh(_through(host, known) if known else host)

    def fresh(self, host: InventoryHost) -> InventoryHost:
        """The host by its own way, on a connection that nobody shares: an open one outlives a firewall."""
        args = f"{_FRESH} {host.variables.get('ansible_ssh_args') or ''}".strip()
        return replace(host, variables={**host.variables, "ansible_ssh_args": args})

    def keep(self, host: InventoryHost, entry: HostLock) -> InventoryHost:
        """Put the way on record, or take an old one off it; return the host as it is reached from now on."""
        known = self.way(host, entry.tunnel)
        if known:
            from provisioner.adapters.hostkeys import remember_as

            known["alias"] = remember_as(ssh.Target.from_variables(host.name, host.variables), host.name)
            store(host.name, known, self._folder)
            return _through(host, known)
        lock = entry.tunnel
        if lock is None or lock.kind not in CARRIES_SSH or lock.role != "spoke":
            forget(host.name, self._folder)
        return host

    def way(self, host: InventoryHost, lock: TunnelLock | None, alias: str | None = None) -> dict[str, Any]:
        """What goes on record; empty where the inventory's own way stays in force.

        The host key is looked for under the name that it has on record now (`alias`: under another).
        """
        target = ssh.Target.from_variables(host.name, host.variables)
        if (
            lock is None
            or lock.role != "spoke"
            or lock.kind not in CARRIES_SSH
            or host.intent.tunnel.reach == "direct"
            or target.local
        ):
            return {}
        from provisioner.adapters.hostkeys import recorded_name

        known: dict[str, Any] = {
            "hub": lock.hub or "",
            "address": lock.address,
            "alias": alias or str(host.path.get("alias") or "") or recorded_name(target),
        }
        if lock.kind == "ssh-reverse":
            known["port"] = lock.port
        elif host.path.get("port") and lock.admit:
            known["port"] = int(lock.admit[0].partition("/")[2])  # not that of a reverse tunnel of before
        return known


__all__ = ["TunnelPaths", "forget", "overlaid", "store"]
