"""The steps of `provision why`: look once at one host, answer for one value."""

from __future__ import annotations

from provisioner.actions.observe import observe
from provisioner.actions.ports import Prober
from provisioner.matrix.reader import Matrix
from provisioner.model.inventory import InventoryHost
from provisioner.probe.request import FULL, Request
from provisioner.resolve.question import read_question
from provisioner.resolve.why import Answer, why


def ask(host: InventoryHost, question: str, matrix: Matrix, *, prober: Prober) -> Answer:
    """Return the answer. Raises BadInput for what is no question, before the host is looked at, and HostError."""
    asked = read_question(question, matrix)
    seen, failed = observe([host], {host.name: Request(FULL)}, prober)
    if failed:
        raise failed[host.name]
    return why(seen[host.name].facts, host.intent, matrix, asked)
