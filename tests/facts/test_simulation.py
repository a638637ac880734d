"""What apt says it would do: recorded outputs (tests/facts/apt, lab hosts of 2026-11-25) and single lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioner.facts.simulation import Simulation, parse, read
from provisioner.model.capture import UNKNOWN, CommandOutput
from provisioner.model.transaction import Move
from tests import world

FOLDER = Path(__file__).parent / "apt"


def recorded(name: str) -> Simulation:
    return parse(CommandOutput(**json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))))


def test_an_upgrade_within_a_branch() -> None:
    """Debian 12, 535.216.03 of the backports to 535.261.03: seventeen packages, each from the archive itself."""
    found = recorded("upgrade-bookworm-535.216-to-535.261")

    assert found.problem == ()
    assert len(found.moves) == 17
    assert {move.action for move in found.moves} == {"upgrade"}
    smi = next(move for move in found.moves if move.name == "nvidia-smi")
    assert smi == Move(
        name="nvidia-smi",
        action="upgrade",
        before="535.216.03-2~bpo12+1",
        after="535.261.03-1",
        origin="Debian:12.15/oldstable",
    )


def test_a_move_to_another_branch() -> None:
    """Debian 13, tesla-535 to 550: the old branch goes; the OpenCL loader goes because the driver's takes its place."""
    found = recorded("trixie-tesla-535-to-550")
    gone = {move.name: move for move in found.moves if move.action == "remove"}
    came = {move.name for move in found.moves if move.action == "install"}

    assert {"nvidia-tesla-535-kernel-dkms", "firmware-nvidia-tesla-535-gsp", "ocl-icd-libopencl1"} <= set(gone)
    assert {"nvidia-kernel-dkms", "libcuda1", "pciutils"} <= came
    assert gone["ocl-icd-libopencl1"].instead == "nvidia-libopencl1"
    assert gone["nvidia-tesla-535-smi"].after is None


@pytest.mark.parametrize(
    ("line", "move"),
    [
        (
            "Inst runc [1.1.5+ds1-1] (1.3.0-1 Debian:13.1/stable [amd64])",
            Move(name="runc", action="upgrade", before="1.1.5+ds1-1", after="1.3.0-1", origin="Debian:13.1/stable"),
        ),
        (
            "Inst libc6 [2.36-9] (2.36-8 Debian:12.1/stable, Debian-Security:12/stable-security [amd64]) []",
            Move(
                name="libc6",
                action="downgrade",
                before="2.36-9",
                after="2.36-8",
                origin="Debian:12.1/stable, Debian-Security:12/stable-security",
            ),
        ),
        (
            "Inst nvidia-smi (535.216.03-2~bpo12+1 Debian Backports:oldstable-backports [amd64])",
            Move(
                name="nvidia-smi",
                action="install",
                after="535.216.03-2~bpo12+1",
                origin="Debian Backports:oldstable-backports",
            ),
        ),
        (
            "Inst docker.io [5:20.1-1] (5:20.1-1 local-deb [amd64])",
            Move(name="docker.io", action="reinstall", before="5:20.1-1", after="5:20.1-1", origin="local-deb"),
        ),
        ("Remv libfoo1:i386 [1.0-1] []", Move(name="libfoo1:i386", action="remove", before="1.0-1")),
        ("Purg nvidia-smi [535.261.03-1]", Move(name="nvidia-smi", action="purge", before="535.261.03-1")),
    ],
)
def test_lines(line: str, move: Move) -> None:
    """Every form that apt prints; what is configured again is no move."""
    answer = CommandOutput(rc=0, stdout=f"NOTE: This is only a simulation!\n{line}\nConf x (1.0 Debian [all])\n")

    assert parse(answer).moves == (move,)


def test_apts_own_words_when_it_refuses() -> None:
    """What is unmet comes before the error, the rest is left out."""
    stdout = (
        "Reading package lists...\nThe following packages have unmet dependencies:\n"
        " nvidia-smi : Depends: libnvidia-ml1 (= 535.261.03-1) but 535.216.03-1 is to be installed\n"
    )
    stderr = "E: Unable to correct problems, you have held broken packages.\n"

    assert parse(CommandOutput(rc=100, stdout=stdout, stderr=stderr)).problem == (
        "nvidia-smi : Depends: libnvidia-ml1 (= 535.261.03-1) but 535.216.03-1 is to be installed",
        "E: Unable to correct problems, you have held broken packages.",
    )
    assert parse(CommandOutput(rc=100, stderr="E: Version '1' for 'x' was not found\n")).problem == (
        "E: Version '1' for 'x' was not found",
    )


def test_not_asked_is_not_nothing() -> None:
    """A capture without the simulation says nothing about it."""
    assert read(world.fitting_capture(world.entry()), "apt-get --simulate install x=1") is UNKNOWN


def test_a_host_cannot_write_into_our_playbooks() -> None:
    """Names and versions are those that dpkg knows; anything else is no move."""
    answer = CommandOutput(rc=0, stdout="Inst x{{1}} (1.0 Debian [all])\nInst {% x (1 Debian [all])\n")

    assert parse(answer).moves == ()
