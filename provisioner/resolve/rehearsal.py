"""Which upgrades to rehearse: the distinct ways from one stack to another that the hosts of two locks go.

Two hosts go the same way when nothing differs that an upgrade could meet: OS, kernels, driver (version, modules, and
its source), runtime and toolkit with their settings, packages with their versions, networks with their clients, what
the modules are told, the kind of tunnel, the models of their cards, and whether they may reboot. How many cards of a
model a host has, its addresses and keys, where its secrets come from, and in which words its request was put, is left
out: of a fleet of 1,000 hosts with 12 stacks, 12 are rehearsed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from provisioner.model.enrolment import canonical
from provisioner.model.rehearsal import Case
from provisioner.model.stack import HostLock, Lock
from provisioner.resolve.moves import HostMove, compare


@dataclass(frozen=True)
class Ways:
    """The cases, most hosts first, and the hosts that need none."""

    cases: tuple[Case, ...]
    unchanged: tuple[str, ...]
    gone: tuple[str, ...]


def ways(before: Lock, after: Lock) -> Ways:
    """Group the hosts of the second lock by the way they go; hosts that only the first one has are `gone`."""
    grouped: dict[str, list[str]] = {}
    pairs: dict[str, tuple[HostLock | None, HostLock]] = {}
    presents: dict[str, str] = {}
    unchanged = []
    prints: dict[int, str] = {}  # by identity: hosts of one kind share the value when a lock is read

    def print_of(entry: HostLock) -> str:
        if id(entry) not in prints:
            prints[id(entry)] = stack_print(entry)
        return prints[id(entry)]

    for name in sorted(after.hosts):
        old, new = before.hosts.get(name), after.hosts[name]
        first, second = print_of(old) if old is not None else "new", print_of(new)
        if first == second:
            unchanged.append(name)
            continue
        key = hashlib.sha256(f"{first} {second}".encode()).hexdigest()[:12]
        grouped.setdefault(key, []).append(name)
        pairs.setdefault(key, (old, new))
        presents.setdefault(key, first)
    cases = [
        Case(
            id=key,
            name=_name(*pairs[key], key),
            hosts=tuple(hosts),
            before=pairs[key][0],
            after=pairs[key][1],
            present=presents[key],
        )
        for key, hosts in grouped.items()
    ]
    return Ways(
        cases=tuple(sorted(cases, key=lambda case: (-len(case.hosts), case.name))),
        unchanged=tuple(unchanged),
        gone=tuple(sorted(before.hosts.keys() - after.hosts.keys())),
    )


def stack_print(entry: HostLock) -> str:
    """One digest for all that a rehearsal rests on; two entries with the same one rehearse alike."""
    intent = entry.intent
    chosen = (entry.driver_version, entry.modules, entry.cuda, entry.runtime, entry.toolkit, entry.cdi, entry.compat)
    value = {
        "os": entry.os,
        "cards": sorted(set(entry.gpus)),
        "kernels": sorted(entry.kernels),
        "chosen": [choice.value if choice is not None else None for choice in chosen],
        "networks": {name: choice.value for name, choice in entry.networks.items()},
        "serves": sorted(intent.networks),
        "clients": [client.model_dump(mode="json") for client in intent.clients],
        "secrets": sorted([one.network, one.name, one.file, one.owner] for one in intent.secrets),
        "packages": sorted([p.name, p.version, p.architecture, p.sha256, p.hold] for p in entry.packages),
        "sources": [source.model_dump(mode="json") for source in entry.sources],
        "docker": [entry.cgroup_driver, entry.default_runtime],
        "options": list(entry.module_options),
        "tunnel": _tunnel_print(entry),
        "host": [intent.watchdog, intent.policy.watchdog_may_reboot, [p.model_dump(mode="json") for p in intent.power]],
        "reboot": intent.policy.reboot,
    }
    return hashlib.sha256(canonical(value)).hexdigest()


def _tunnel_print(entry: HostLock) -> dict[str, object]:
    """What a tunnel is like, without what makes it this host's own: name of the hub, addresses, keys."""
    wish = entry.intent.tunnel.model_dump(mode="json")
    own = ("hub", "mesh", "endpoint", "range", "address", "lans", "server")
    return {key: value for key, value in wish.items() if key not in own}


def difference(case: Case) -> HostMove:
    """What moves on this way, value by value."""
    if case.before is None:
        return HostMove("found")
    return compare(case.before, case.after, ())


def stack_words(entry: HostLock | None) -> str:
    """`driver 535.261.03, docker-io, akash, tunnel by wireguard`."""
    if entry is None:
        return "nothing yet"
    return ", ".join(_words(entry))


def _words(entry: HostLock) -> Iterator[str]:
    yield f"driver {_driver(entry)}" if entry.driver_version is not None else "no driver"
    # Without what a distribution adds to the version: it is in the packages, and too long for a line.
    yield entry.runtime.value.partition("+")[0] if entry.runtime is not None else "no runtime"
    yield from entry.intent.networks
    if entry.intent.tunnel.kind != "none":
        yield f"tunnel by {entry.intent.tunnel.kind}"


def _driver(entry: HostLock) -> str:
    version = entry.driver_version.value if entry.driver_version is not None else "none"
    return f"{version} open" if entry.modules is not None and entry.modules.value == "open" else version


def _name(before: HostLock | None, after: HostLock, key: str) -> str:
    """`debian-12-rtx-3090-535.216.03-to-535.261.03-1a2b`; the end tells ways apart that read alike."""
    cards = "-".join(dict.fromkeys(after.gpus)) or "no-gpu"
    return "-".join((after.os, cards, _way(before, after), key[:4])).replace("/", "-").replace(" ", "-")


def _way(before: HostLock | None, after: HostLock) -> str:
    """The first thing that moves: the driver, the runtime, or else packages and clients."""
    if before is None:
        return f"new-to-{_driver(after)}"
    if _driver(before) != _driver(after):
        return f"{_driver(before)}-to-{_driver(after)}"
    if before.engine != after.engine:
        return f"{before.engine or 'no runtime'}-to-{after.engine or 'no runtime'}"
    return f"{_driver(after) if after.driver_version is not None else 'no driver'}-packages"
