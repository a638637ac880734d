"""Look at hosts with doctor's eyes and say what is wrong with each; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from provisioner.actions.ports import Prober
from provisioner.doctor.diagnose import Catalogue, Diagnosis, diagnose
from provisioner.errors import HostError
from provisioner.model.inventory import InventoryHost
from provisioner.probe.request import DOCTOR, Request


def doctor(hosts: Sequence[InventoryHost], prober: Prober, catalogue: Catalogue) -> Iterator[Diagnosis | HostError]:
    """One diagnosis per host, or why it could not be seen, in the order of the hosts."""
    answers = prober.probe(hosts, {host.name: Request(DOCTOR) for host in hosts})
    for host in hosts:
        answer = answers.pop(host.name)  # a diagnosed capture is not needed any more
        yield answer if isinstance(answer, HostError) else diagnose(answer, catalogue)
