"""The steps of `provision doctor --fix`: look, see what the ordinary plan mends, have it applied, look again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from provisioner.actions.plan import Planned
from provisioner.actions.ports import Prober
from provisioner.doctor.diagnose import Catalogue, Diagnosis, diagnose
from provisioner.doctor.foresee import Mend, mends
from provisioner.errors import HostError
from provisioner.model.capture import Capture
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import HostPlan
from provisioner.probe.request import DOCTOR, Request


@dataclass(frozen=True)
class Patient:
    """One host as doctor saw it, with what its plan mends; `plan` None: none was asked for, or none could be made."""

    host: InventoryHost
    capture: Capture
    diagnosis: Diagnosis
    mends: tuple[Mend, ...] = ()
    plan: HostPlan | None = None
    problem: str = ""  # why there is no plan

    @property
    def treated(self) -> bool:
        """Whether the plan mends something, and may be carried out."""
        return self.plan is not None and not self.plan.blocked and any(mend.by_plan for mend in self.mends)

    @property
    def wants_plan(self) -> bool:
        """Whether a plan could mend anything of it at all."""
        return any(finding.mechanism.repair.plan for finding in self.diagnosis.findings)


def look(
    hosts: Sequence[InventoryHost], prober: Prober, catalogue: Catalogue
) -> tuple[dict[str, Patient], dict[str, HostError]]:
    """Look at hosts with doctor's eyes; who could not be seen is told apart."""
    answers = prober.probe(hosts, {host.name: Request(DOCTOR) for host in hosts})
    seen: dict[str, Patient] = {}
    failed: dict[str, HostError] = {}
    for host in hosts:
        answer = answers[host.name]
        if isinstance(answer, HostError):
            failed[host.name] = answer
        else:
            seen[host.name] = Patient(host, answer, diagnose(answer, catalogue))
    return seen, failed


def prescribe(
    patients: Mapping[str, Patient], planned: Planned | None, catalogue: Catalogue, *, without: str = ""
) -> dict[str, Patient]:
    """Say of each finding whether the host's plan mends it. `without` is why there is no plan for any host."""
    found = {}
    for name, patient in patients.items():
        plan = planned.plan.hosts.get(name) if planned is not None else None
        problem = planned.failed.get(name) if planned is not None else None
        found[name] = replace(
            patient,
            plan=plan,
            mends=mends(patient.diagnosis, patient.capture, plan, catalogue),
            problem=problem.message if problem is not None else without,
        )
    return found


def only(planned: Planned, names: Sequence[str]) -> Planned:
    """The part of a plan that is of these hosts."""
    hosts = {name: planned.plan.hosts[name] for name in names}
    locked = {name: planned.plan.locked[name] for name in names}
    return Planned(
        plan=planned.plan.model_copy(update={"hosts": hosts, "locked": locked, "failed": {}}),
        seen={name: planned.seen[name] for name in names},
        goals={name: planned.goals[name] for name in names},
    )


@dataclass(frozen=True)
class Outcome:
    """What a second look found of a host that was treated: titles by mechanism."""

    mended: dict[str, str]
    left: dict[str, str]
    new: dict[str, str]


def outcome(before: Diagnosis, now: Diagnosis) -> Outcome:
    """What is gone, what is still there, what has come. A consequence whose cause is gone is no new finding."""
    then = {finding.mechanism.id: finding.mechanism.title for finding in before.findings}
    known = {
        name
        for finding in before.findings
        for name in (*finding.covers, *(item.id for item in finding.follows), finding.mechanism.id)
    }
    after = {finding.mechanism.id: finding.mechanism.title for finding in now.findings}
    return Outcome(
        mended={name: title for name, title in then.items() if name not in after},
        left={name: title for name, title in after.items() if name in known},
        new={name: title for name, title in after.items() if name not in known},
    )
