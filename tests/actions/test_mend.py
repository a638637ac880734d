"""Who is treated, with which part of a plan, and what a second look makes of it."""

from __future__ import annotations

from provisioner.actions.mend import Patient, outcome, prescribe
from provisioner.doctor.diagnose import diagnose
from provisioner.model.capture import Capture
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from tests.doctor.hosts import UNITS_LINE, Rig, out
from tests.doctor.world import catalogue

RIG = Rig(system="debian-12", driver="535.261.03")
SICK = {UNITS_LINE: out(RIG.units(nvidia_persistenced="failed"))}


def patient(capture: Capture) -> Patient:
    return Patient(InventoryHost("rig-01", {}, Intent()), capture, diagnose(capture, catalogue()))


def sick() -> Patient:
    return patient(Rig(system="debian-12", driver="535.261.03", commands=SICK).capture())


def test_without_a_lock_everything_is_explained() -> None:
    """The reason stands beside the findings, and nobody is treated."""
    found = prescribe({"rig-01": sick()}, None, catalogue(), without="there is no lock")["rig-01"]

    assert (found.treated, found.problem, found.wants_plan) == (False, "there is no lock", True)
    assert [mend.why for mend in found.mends] == ["no plan"]


def test_what_a_second_look_finds() -> None:
    """Gone, still there, and come since are three things."""
    before, well = sick().diagnosis, patient(RIG.capture()).diagnosis

    assert list(outcome(before, well).mended) == ["persistence-daemon-failed"]
    assert list(outcome(before, before).left) == ["persistence-daemon-failed"]
    assert list(outcome(well, before).new) == ["persistence-daemon-failed"]
