"""The steps of `provision upgrade`: look once, decide each host's step, make the lock: pins first, then the client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from provisioner.actions.locked import not_locked
from provisioner.actions.observe import observe
from provisioner.actions.ports import Prober
from provisioner.actions.resolve import with_sources
from provisioner.errors import BadInput, HostError
from provisioner.matrix.reader import Matrix
from provisioner.model.inventory import InventoryHost
from provisioner.model.stack import Lock
from provisioner.probe.request import FULL, Request
from provisioner.resolve.lock import make_lock
from provisioner.resolve.options import named_parts, network_named, versioned_client
from provisioner.resolve.upgrade import Step, same_request, upgraded


@dataclass(frozen=True)
class Upgraded:
    """The step of every host that serves the network; `lock` has what may be written now."""

    lock: Lock
    program: str
    steps: dict[str, Step] = field(default_factory=dict)
    others: tuple[str, ...] = ()  # hosts that do not serve it
    unlocked: tuple[str, ...] = ()  # hosts that serve it and have no entry, or one of another request or matrix
    failed: dict[str, HostError] = field(default_factory=dict)

    def named(self, *states: str) -> tuple[str, ...]:
        return tuple(name for name, step in self.steps.items() if step.state in states)


def upgrade(
    hosts: Sequence[InventoryHost], network: str, to: str, matrix: Matrix, before: Lock, *, prober: Prober
) -> Upgraded:
    """Return each host's step. Raises BadInput for an unknown network, another pin, or a client without an image."""
    entry, _, _ = network_named(network, matrix)
    client = versioned_client(entry)
    serving = [host for host in hosts if network in {named_parts(name)[0] for name in host.intent.networks}]
    _refuse_other_pins(serving, network, to)
    _refuse_without_image(serving, network, to)
    locked = [
        h
        for h in serving
        if not_locked(h.name, before) is None and same_request(before.hosts[h.name].intent, h.intent, network)
    ]
    seen, failed = observe(locked, {host.name: Request(FULL) for host in locked}, prober)
    # A host whose entry was never applied has the sources of its entry in prospect only.
    seen, unread = with_sources(seen, {name: before.hosts[name].sources for name in seen}, prober)
    failed |= unread
    steps = {
        name: upgraded(one.facts, one.host.intent, before.hosts[name], network, to, matrix)
        for name, one in seen.items()
    }
    return Upgraded(
        lock=make_lock(
            {n: step.entry.model_copy(update={"sources": before.hosts[n].sources}) for n, step in steps.items()},
            matrix.digest,
            before,
        ),
        program=client.name if client is not None else network,
        steps=steps,
        others=tuple(host.name for host in hosts if host not in serving),
        unlocked=tuple(host.name for host in serving if host not in locked),
        failed=failed,
    )


def _refuse_other_pins(hosts: Sequence[InventoryHost], network: str, to: str) -> None:
    """The inventory has the last word: a pin to another version is not overruled."""
    pinned = {
        host.name: name
        for host in hosts
        for name in host.intent.networks
        if named_parts(name)[0] == network and named_parts(name)[2] not in ("", to)
    }
    if pinned:
        raise BadInput(
            "pinned-otherwise",
            f"the inventory pins {network} to another version than {to}",
            context=[f"{host}: provision_networks has {name}" for host, name in pinned.items()],
            hint=f"write {network}@{to}, or {network} alone",
        )


def _refuse_without_image(hosts: Sequence[InventoryHost], network: str, to: str) -> None:
    """A lock with a client that has no image could not be applied: said before the first host is touched."""
    missing = [
        f"{host.name}: {one.called} has images for {', '.join(dict(one.images)) or 'no version'}"
        for host in hosts
        for one in host.intent.clients
        if one.network == network and one.taken(to) is None
    ]
    if missing:
        raise BadInput(
            "no-image",
            f"no image is named for {network} {to}",
            context=missing,
            hint="name it under images of provision_clients (docs/reference/clients.md)",
        )
