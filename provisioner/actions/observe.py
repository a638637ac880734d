"""Look at hosts and read what was seen: probe → capture → facts, each host's failure its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from provisioner.actions.ports import Prober
from provisioner.errors import HostError
from provisioner.facts import read
from provisioner.model.capture import Capture
from provisioner.model.facts import HostFacts
from provisioner.model.inventory import InventoryHost
from provisioner.probe.request import Request


@dataclass(frozen=True)
class Seen:
    """One host as it was seen."""

    host: InventoryHost
    capture: Capture
    facts: HostFacts


def observe(
    hosts: Sequence[InventoryHost], requests: Mapping[str, Request], prober: Prober
) -> tuple[dict[str, Seen], dict[str, HostError]]:
    """Return what was seen per host, and why the others were not seen."""
    answers = prober.probe(hosts, requests)
    seen: dict[str, Seen] = {}
    failed: dict[str, HostError] = {}
    for host in hosts:
        answer = answers[host.name]
        if isinstance(answer, HostError):
            failed[host.name] = answer
        else:
            seen[host.name] = Seen(host, answer, read(answer))
    return seen, failed
