"""The steps of `provision invite`: give a host its address, write the invitation; later take in who came with it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from provisioner.actions.ports import HostShell
from provisioner.errors import BadInput, HostError
from provisioner.model.inventory import InventoryHost
from provisioner.model.stack import Lock, ParkedTunnel
from provisioner.model.tunnel import TunnelLock
from provisioner.tunnels.assign import Member, assign
from provisioner.tunnels.contract import Own
from provisioner.tunnels.invite import JOIN, Secrets, file_text, intent_digest, record
from provisioner.tunnels.keys import is_wireguard
from provisioner.tunnels.lock import all_tunnels


@dataclass(frozen=True)
class Invitation:
    """What the operator hands on: the file to run, and by another way the code."""

    host: str
    hub: str
    address: str
    text: str
    code: str
    expires: int


@dataclass(frozen=True)
class Hub:
    """Where and as whom the hub is known: the rig has to find it, and to recognise it."""

    host: InventoryHost
    ssh_host: str
    ssh_port: int
    keys: tuple[str, ...]


def hub_name(host: InventoryHost) -> str:
    """The hub of a host that may be invited. Raises BadInput for a host that is not joined by WireGuard."""
    wish = host.intent.tunnel
    if wish.kind != "wireguard" or wish.role != "spoke" or wish.hub is None:
        raise BadInput(
            "invite-no-spoke",
            f"{host.name} is no wireguard spoke, and only those join by invitation",
            hint=f"give {host.name} provision_tunnel: {{kind: wireguard, hub: HOST}}",
        )
    return wish.hub


def invite(
    host: InventoryHost,
    hub: Hub,
    lock: Lock,
    shell: HostShell,
    secrets: Secrets,
    *,
    expires: int,
    user: str,
    keys: Sequence[str],
) -> tuple[Invitation, Lock]:
    """Write the invitation down on the hub and return it, with the lock in which the host has its address."""
    name = hub_name(host)
    joined = all_tunnels(lock)
    if name not in joined or joined[name].lock.public_key is None:
        raise BadInput(
            "invite-hub-not-ready",
            f"{host.name} cannot be invited: its hub {name} is not set up yet",
            hint=f"provision resolve --limit {name}, provision apply --limit {name}, and both once more",
        )
    members = [Member(n, one.wish, one.lock) for n, one in joined.items() if n != host.name]
    before = joined[host.name].lock if host.name in joined else None
    found = assign([*members, Member(host.name, host.intent.tunnel, before)])
    own = Own(host.name, host.intent.tunnel, found[host.name])
    told = record(own, host.intent, secrets, expires=expires, user=user, keys=keys)
    answer = _asked(hub.host, shell.run(hub.host, f"{JOIN} admit", stdin=told))
    if answer.get("id") != secrets.id:
        raise HostError(
            "invite-refused",
            name,
            f"{name} did not take the invitation of {host.name}",
            context=(str(answer.get("refused", answer)),),
        )
    text = file_text(own, secrets, expires=expires, hub_keys=hub.keys, hub_host=hub.ssh_host, hub_port=hub.ssh_port)
    parked = ParkedTunnel(wish=host.intent.tunnel, lock=found[host.name])
    return (
        Invitation(host.name, name, found[host.name].address, text, secrets.code, expires),
        _with(lock, host.name, parked),
    )


def revoke(host: InventoryHost, hub: InventoryHost, shell: HostShell) -> int:
    """Take back what was not used yet; returns how many invitations there were."""
    answer = _asked(hub, shell.run(hub, f"{JOIN} revoke {shlex.quote(host.name)}"))
    return int(answer.get("revoked", 0))


@dataclass(frozen=True)
class Joined:
    """A rig that came with its invitation, as the hub noted it."""

    host: str
    address: str
    public_key: str
    host_keys: tuple[str, ...]
    machine: str
    came_from: str
    at: int


def joined(host: InventoryHost, hub: InventoryHost, shell: HostShell) -> Joined:
    """Return who joined as this host. Raises BadInput when nobody has, or for another intent than the inventory's."""
    answer = shell.run(hub, f"cat /var/lib/provision/joined/{shlex.quote(host.name)}.json")
    try:
        value = json.loads(answer.stdout)
        found = Joined(
            host=str(value["host"]),
            address=str(value["address"]),
            public_key=str(value["public_key"]),
            host_keys=tuple(str(key) for key in value["host_keys"]),
            machine=str(value["machine"]),
            came_from=str(value["came_from"]),
            at=int(value["at"]),
        )
        intent = str(value["intent"])
    except (ValueError, KeyError, TypeError) as problem:
        raise BadInput(
            "invite-nobody-came",
            f"nobody has joined as {host.name} yet",
            context=(answer.stderr.strip(),) if answer.rc not in (0, 1) else (),
            hint=f"is the invitation still good? a new one: provision invite {host.name}",
        ) from problem
    if found.host != host.name or not is_wireguard(found.public_key):
        raise BadInput("invite-not-valid", f"what {hub.name} noted of {host.name} is damaged; nothing was recorded")
    if intent != intent_digest(host.intent):
        raise BadInput(
            "invite-other-intent",
            f"{host.name} was invited for another intent than the inventory states now; nothing was recorded",
            hint=f"provision invite {host.name} again, or put its provision_ variables back as they were",
        )
    return found


def take_in(
    host: InventoryHost, came: Joined, lock: Lock, keep: Callable[[InventoryHost, TunnelLock, str], None]
) -> Lock:
    """Put the rig's key in the lock and its ssh key on record; `keep` does the latter. Returns the new lock."""
    known = all_tunnels(lock)
    mine = known.get(host.name)
    if mine is None or mine.lock.address != came.address:
        raise BadInput(
            "invite-address-moved",
            f"{host.name} joined as {came.address}, and the lock says {mine.lock.address if mine else 'nothing'} of it",
            hint="the lock is another than the one that the invitation was made with: fetch it, then accept again",
        )
    members = [
        Member(name, one.wish, one.lock, keys={one.lock.generation: came.public_key} if name == host.name else None)
        for name, one in known.items()
    ]
    found = assign(members)
    hosts = {
        name: entry.model_copy(update={"tunnel": found[name]}) if name in found else entry
        for name, entry in lock.hosts.items()
    }
    tunnels = {name: one.model_copy(update={"lock": found[name]}) for name, one in lock.tunnels.items()}
    keep(host, found[host.name], came.host_keys[0])
    return lock.model_copy(update={"hosts": hosts, "tunnels": tunnels})


def _with(lock: Lock, name: str, parked: ParkedTunnel) -> Lock:
    """The lock with a parked host; one that has an entry keeps it, for its address is there already."""
    if name in lock.hosts and lock.hosts[name].tunnel is not None:
        return lock
    return lock.model_copy(update={"tunnels": dict(sorted({**lock.tunnels, name: parked}.items()))})


def _asked(hub: InventoryHost, answer: Any) -> dict[str, Any]:
    try:
        value = json.loads(answer.stdout)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise HostError(
            "invite-hub-not-ready",
            hub.name,
            f"{hub.name} cannot take invitations yet",
            context=tuple((answer.stderr.strip() or f"exit code {answer.rc}").splitlines()[-3:]),
            hint=f"provision apply --limit {hub.name}",
        )
    return value
