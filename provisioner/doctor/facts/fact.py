"""What a fact is: a name, what a person calls it, the command that shows it, and how it is read with its evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from provisioner.doctor.host import Host
from provisioner.doctor.truth import Evidence
from provisioner.model.capture import UNKNOWN
from provisioner.probe.request import ALLOCATABLE, HANDED_OUT, IN_CONTAINERS, PROVIDER

CALLED = {
    ALLOCATABLE.line: "kubectl get node",
    HANDED_OUT.line: "docker inspect",
    IN_CONTAINERS.line: "/proc/[0-9]*/maps",
    PROVIDER.line: "akash-provider's status",
}
"""Long lines of doctor's own look as they are called where they are evidence."""


@dataclass(frozen=True)
class Seen:
    """A value with the lines that show it; UNKNOWN: not seen, None or an empty tuple: looked for and not there."""

    value: Any
    evidence: tuple[Evidence, ...] = ()


UNSEEN = Seen(UNKNOWN)


@dataclass(frozen=True)
class Fact:
    """One fact of the language; `kind` says what its value is (version, versions, text, texts, number, truth)."""

    name: str
    kind: str
    words: str
    show: str
    read: Callable[[Host], Seen]
    asked: bool = True  # False: only a person can show it, doctor's own look does not

    def of(self, host: Host) -> Seen:
        """Read once per host."""
        if self.name not in host.facts:
            host.facts[self.name] = self.read(host)
        found: Seen = host.facts[self.name]
        return found
