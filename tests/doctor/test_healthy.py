"""Healthy hosts get a clean bill, and recorded ones no finding that is not true."""

from __future__ import annotations

import itertools

import pytest

from provisioner.cli.views.doctor import diagnosis_text
from provisioner.facts.files import parse_capture
from tests.doctor.hosts import SYSTEMS, Rig
from tests.doctor.world import CAPTURES, ids, look

DRIVERS = (
    ("535.261.03", False, "RTX 3090"),
    ("550.127.05", False, "A100"),
    ("580.95.05", True, "RTX 5090"),
    ("580.95.05", False, "GTX 1080"),
    ("570.195.03", True, "T4"),
)
AROUND = (
    {"docker": "28.3.2", "toolkit": "1.18.2"},
    {"docker": "20.10.24"},
    {"docker": "29.3.0", "dkms": False},
    {"docker": None, "toolkit": None, "cluster": True},
    {"docker": None, "toolkit": None},
    {"docker": "27.5.1", "toolkit": None, "secure_boot": True},
)
RIGS = [
    Rig(system=system, driver=driver, open=flavour, card=card, **around)  # type: ignore[arg-type]
    for (system, (driver, flavour, card), around) in itertools.product(SYSTEMS, DRIVERS, AROUND)
    if around.get("dkms", True) or system.startswith("ubuntu")
]


@pytest.mark.parametrize(
    "rig", RIGS, ids=lambda rig: f"{rig.system}-{rig.driver}-{rig.card}-{rig.docker}-{rig.dkms}-{rig.cluster}"
)
def test_a_healthy_host_has_a_clean_bill(rig: Rig) -> None:
    """Whatever its system, driver, cards and engine: nothing is found, suspected or left unseen."""
    diagnosis = look(rig.capture())

    assert (ids(diagnosis), diagnosis.state) == ([], "clean")


def test_there_are_enough_of_them() -> None:
    """At least forty healthy hosts."""
    assert len(RIGS) >= 40


def test_a_clean_bill_is_short() -> None:
    """One line says what was agreed; what doctor can't try is named with the command that would."""
    assert (
        diagnosis_text(look(Rig().capture()))
        == """\
rig-01  nothing is wrong: driver 550.127.05 agrees in 7 places, 2 cards on the bus and in NVML
Not tried, for doctor changes and starts nothing:
  a container that asks for a GPU  docker run --rm --gpus all ubuntu nvidia-smi
  what the package manager says    apt-get update; apt-get check
  what clients and networks say    the client's own log"""
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("debian-11-bare.json", ["no-driver-installed"]),
        ("debian-12-bare.json", ["no-driver-installed"]),
        ("debian-13-bare.json", ["no-driver-installed"]),
        ("debian-12-driver.json", []),
        ("debian-12-driver-before-reboot.json", ["nouveau-holds-the-cards"]),
        (
            "ubuntu-24.04-open-dkms-after-upgrade.yaml",
            ["driver-replaced-under-loaded-module", "next-kernel-without-module"],
        ),
        ("ubuntu-22.04-signed-modules.yaml", ["kernel-without-initramfs", "packages-half-configured"]),
    ],
)
def test_recorded_hosts(name: str, found: list[str]) -> None:
    """Real looks of a narrower profile: what is true is found, what was not looked at is never called well."""
    diagnosis = look(parse_capture((CAPTURES / name).read_bytes(), name))

    assert ids(diagnosis) == found
    assert diagnosis.state == ("found" if found else "incomplete")
