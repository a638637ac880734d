"""A transaction that does what nobody asked for is refused, with the package and what is wrong with it."""

from __future__ import annotations

import pytest

from provisioner.model.facts import Package as Installed
from provisioner.model.plan import Change
from provisioner.model.resource import AbsentPackage, Package
from provisioner.model.transaction import Move
from provisioner.plan.refuse import refusals

DEBIAN = "Debian:12.12/oldstable"
OLD, NEW = "535.216.03-1~bpo12+1", "535.261.03-1~deb12u1"


def change(wanted: Package | AbsentPackage) -> Change:
    return Change(phase="change", what=wanted.key, before=None, after="x", wanted=wanted)


NAMED = [
    change(Package(name="nvidia-smi", version=NEW, unit="driver")),
    change(AbsentPackage(name="nvidia-tesla-470-smi")),
]
ASKED = [
    Move(name="nvidia-smi", action="upgrade", before=OLD, after=NEW, origin=DEBIAN),
    Move(name="nvidia-tesla-470-smi", action="remove", before="470.256.02-1"),
]
INSTALLED = {"runc": Installed("runc", "1.1.5", held=True)}


def test_what_the_plan_asks_for_is_allowed() -> None:
    """A named upgrade, a named removal, and a new dependency of the same distribution."""
    dependency = Move(name="glx-alternative-nvidia", action="install", after="1.2.2", origin="Debian:12.12/oldstable")
    fix = Move(
        name="libssl3", action="upgrade", before="3.0.1", after="3.0.2", origin="Debian-Security:12/oldstable-security"
    )

    assert refusals([*ASKED, dependency, fix], NAMED, INSTALLED) == ()


@pytest.mark.parametrize(
    ("move", "words"),
    [
        (
            Move(name="linux-image-6.1.0-50-amd64", action="remove", before="6.1.175-1"),
            "apt would remove the kernel linux-image-6.1.0-50-amd64 6.1.175-1, which the plan did not ask for",
        ),
        (
            Move(name="docker.io", action="purge", before="20.10.24"),
            "apt would remove the container runtime docker.io 20.10.24, which the plan did not ask for",
        ),
        (
            Move(name="gnome-shell", action="remove", before="43"),
            "apt would remove gnome-shell 43, which the plan did not ask for",
        ),
        (
            Move(name="linux-image-6.1.0-51-amd64", action="install", after="6.1.180-1", origin=DEBIAN),
            "apt would bring the kernel package linux-image-6.1.0-51-amd64 6.1.180-1, for which nothing has built "
            "a module",
        ),
        (
            Move(name="libcuda1", action="install", after="550.163.01-2", origin=DEBIAN),
            "apt would bring libcuda1 550.163.01-2, of another driver branch than the plan's 535",
        ),
        (
            Move(name="dkms", action="downgrade", before="3.1", after="3.0", origin=DEBIAN),
            "apt would take dkms 3.1 → 3.0 down, which the plan did not ask for",
        ),
        (
            Move(name="runc", action="upgrade", before="1.1.5", after="1.1.6", origin=DEBIAN),
            "apt would change runc 1.1.5 → 1.1.6, which is held",
        ),
        (
            Move(name="libnvidia-container1", action="install", after="1.17.4", origin="nvidia:stable"),
            "apt would take libnvidia-container1 1.17.4 from nvidia:stable, which nothing in the plan comes from",
        ),
        (
            Move(name="nvidia-smi", action="upgrade", before=OLD, after="550.163.01-2", origin=DEBIAN),
            f"apt would install nvidia-smi 550.163.01-2, the plan says {NEW}",
        ),
        (
            Move(name="nvidia-smi", action="remove", before=OLD),
            f"apt would remove nvidia-smi {OLD}, which the plan installs",
        ),
        (
            Move(name="nvidia-tesla-470-smi", action="upgrade", before="470.1-1", after="470.2-1", origin=DEBIAN),
            "apt would install nvidia-tesla-470-smi 470.2-1, which the plan takes away",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Move) else "",
)
def test_what_it_does_not_ask_for_is_refused(move: Move, words: str) -> None:
    """One line for each: what apt would do, and why that is not meant."""
    others = [asked for asked in ASKED if asked.name != move.name]

    assert refusals([*others, move], NAMED, INSTALLED) == (words,)


def test_tools_of_their_own_source_may_be_of_any_branch() -> None:
    """Debian 13 ships nvidia-modprobe 535 with driver 550."""
    named = [change(Package(name="nvidia-smi", version="550.163.01-2", unit="driver"))]
    tool = Move(name="nvidia-modprobe", action="install", after="535.161.07-1", origin=DEBIAN)

    assert refusals([tool], named, {}) == ()


def test_what_takes_the_place_of_something_may_push_it_out() -> None:
    """nvidia-libopencl1 provides what ocl-icd-libopencl1 did; a runtime goes for nothing."""
    named = [change(Package(name="nvidia-libopencl1", version="550.163.01-2", unit="driver"))]
    coming = Move(name="nvidia-libopencl1", action="install", after="550.163.01-2", origin=DEBIAN)
    going = Move(name="ocl-icd-libopencl1", action="remove", before="2.3.3-1", instead="nvidia-libopencl1")
    docker = Move(name="docker.io", action="remove", before="20.10.24", instead="nvidia-libopencl1")

    assert refusals([coming, going], named, {}) == ()
    assert len(refusals([coming, docker], named, {})) == 1
