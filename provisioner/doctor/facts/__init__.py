"""The facts that mechanisms ask for, by name: an explicit table, one file per area."""

from __future__ import annotations

from provisioner.doctor.facts import baseline, cards, containers, counts, driver, machine, software, tunnel
from provisioner.doctor.facts.fact import Fact

FACTS: dict[str, Fact] = {
    fact.name: fact
    for fact in (
        *driver.FACTS,
        *cards.FACTS,
        *software.FACTS,
        *containers.FACTS,
        *counts.FACTS,
        *baseline.FACTS,
        *machine.FACTS,
        *tunnel.FACTS,
    )
}

__all__ = ["FACTS", "Fact"]
