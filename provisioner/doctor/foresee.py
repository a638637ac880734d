"""What would go wrong if a plan were carried out, and what it would mend: mechanisms held against the host after it.

Theory: the same three-valued answers, on the capture that `after` makes. A mechanism that holds there and does not
hold now would come with the change; one that is open only for want of what the next boot shows may come with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from provisioner.doctor.after import after
from provisioner.doctor.diagnose import Catalogue, Diagnosis, Finding, diagnose
from provisioner.doctor.facts import FACTS
from provisioner.doctor.host import Host
from provisioner.doctor.judge import of_mechanism
from provisioner.doctor.mechanism import Mechanism
from provisioner.doctor.parts import in_part
from provisioner.doctor.truth import Evidence, Truth
from provisioner.model.capture import Capture
from provisioner.model.plan import Ahead, Change, HostPlan

# What the next boot shows, and nothing before it.
_OF_THE_BOOT = {
    FACTS[name].words
    for name in ("driver.loaded", "driver.flavour", "kernel.nouveau", "cards.bound_to", "devices.nodes", "nvidia-smi")
}
_MOST_LINES = 2


def foresee(capture: Capture, plan: HostPlan, catalogue: Catalogue) -> tuple[Ahead, ...]:
    """What would be wrong after the plan, the dearest first. What costs nothing yet and mere symptoms are left out."""
    now = _holding(diagnose(capture, catalogue))
    then = diagnose(after(capture, plan), catalogue)
    found = [
        _ahead(f.mechanism, f.evidence, sure=f.certainty == "certain", new=f.mechanism.id not in now)
        for f in then.findings
    ]
    if plan.reboot:
        found += [
            _ahead(item.mechanism, item.evidence, sure=False, new=item.mechanism.id not in now)
            for item in then.suspicions
            if {look.what for look in item.missing} <= _OF_THE_BOOT
        ]
    costly = [item for item in found if _matters(catalogue.mechanisms[item.mechanism])]
    return tuple(costly)


def _matters(mechanism: Mechanism) -> bool:
    return mechanism.kind == "cause" and mechanism.costs.level != "notice"


def _holding(diagnosis: Diagnosis) -> set[str]:
    return {
        name
        for finding in diagnosis.findings
        for name in (finding.mechanism.id, *finding.covers, *(item.id for item in finding.follows))
    }


def _ahead(mechanism: Mechanism, evidence: tuple[Evidence, ...], *, sure: bool, new: bool) -> Ahead:
    return Ahead(
        mechanism=mechanism.id,
        title=mechanism.title,
        costs=mechanism.costs.words,
        evidence=tuple(f"{item.text}   {item.where}" for item in evidence[:_MOST_LINES]),
        mend=next((step.do for step in mechanism.repair.steps), ""),
        sure=sure,
        new=new,
        stops=mechanism.ahead == "stop",
        told=new or mechanism.ahead is not None,
    )


# What a plan mends.

Why = Literal["by hand", "no plan", "blocked", "as locked", "not enough"]


@dataclass(frozen=True)
class Mend:
    """One finding and how it is mended: by these changes of the plan, or by a person, and why not by the plan."""

    finding: Finding
    changes: tuple[Change, ...] = ()
    why: Why = "by hand"

    @property
    def by_plan(self) -> bool:
        return bool(self.changes)


def mends(diagnosis: Diagnosis, capture: Capture, plan: HostPlan | None, catalogue: Catalogue) -> tuple[Mend, ...]:
    """For each finding: the plan's changes that mend it. `plan` None: none could be made.

    A plan mends what its mechanism says a plan can mend, where it has such a change and the mechanism would not hold
    after it.
    """
    later = Host(after(capture, plan), catalogue.matrix) if plan is not None and not plan.blocked else None
    return tuple(_mend(finding, plan, later) for finding in diagnosis.findings)


def _mend(finding: Finding, plan: HostPlan | None, later: Host | None) -> Mend:
    part = finding.mechanism.repair.plan
    if part is None:
        return Mend(finding)
    if plan is None or later is None:
        return Mend(finding, why="blocked" if plan is not None else "no plan")
    changes = in_part(part, plan.changes)
    if not changes:
        return Mend(finding, why="as locked")
    if of_mechanism(finding.mechanism, later)[0].truth is Truth.YES:
        return Mend(finding, why="not enough")
    return Mend(finding, changes)
