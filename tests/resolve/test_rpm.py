"""RHEL-likes resolved: the driver's set by NVIDIA's RPM names, exact versions, the kernel's own kernel-devel."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from provisioner.facts import read
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock
from provisioner.resolve.conflict import NoSolution
from provisioner.resolve.resolver import solve
from tests.dnf_world import KERNEL, RECORDED, rocky
from tests.resolve import worlds


def locked(facts: HostFacts, **request: Any) -> HostLock:
    entry = solve(facts, Intent.model_validate(request), worlds.matrix())
    assert isinstance(entry, HostLock), entry
    return entry


def versions(entry: HostLock, unit: str) -> dict[str, str]:
    return {package.name: package.version for package in entry.packages if package.unit == unit}


def test_the_driver_is_one_unit_of_one_version_and_one_flavour() -> None:
    entry = locked(read(rocky()))
    assert entry.os == "rocky-9"
    assert versions(entry, "driver") == dict.fromkeys(
        (
            "kmod-nvidia-open-dkms",
            "libnvidia-ml",
            "nvidia-driver-cuda",
            "nvidia-driver-cuda-libs",
            "nvidia-kmod-common",
            "nvidia-persistenced",
        ),
        "3:580.159.03-1.el9",
    )
    assert versions(entry, "kernel") == {"kernel-devel": "5.14.0-570.12.1.el9_6"}
    assert set(versions(entry, "toolkit").values()) == {"1.19.1-1"}
    assert versions(entry, "runtime")["docker-ce"] == "3:29.3.0-1.el9"
    assert all(len(package.sha256) == 64 and package.hold for package in entry.packages)
    assert entry.kernels == (KERNEL,)
    assert entry.vendor_driver


def test_reasons_are_told_in_the_words_of_every_system() -> None:
    entry = locked(read(rocky()), driver="580.95.05")
    assert entry.driver_version is not None and entry.modules is not None
    assert entry.driver_version.value == "580.95.05"
    assert entry.modules.because[0].text == "kmod-nvidia-open-dkms carries open kernel modules"


def test_the_other_flavour_is_another_set() -> None:
    entry = locked(read(rocky()), modules="proprietary", driver="580.159.03")
    names = versions(entry, "driver")
    assert "kmod-nvidia-latest-dkms" in names
    assert "kmod-nvidia-open-dkms" not in names
    assert set(names.values()) == {"3:580.159.03-1.el9"}


def test_what_brings_the_other_flavour_is_not_taken_along() -> None:
    """nvidia-open is installed, of the very version; the wish is the proprietary module, which it excludes."""
    text = (RECORDED / "installed.txt").read_text(encoding="utf-8") + "nvidia-open\t3:580.95.05-1.el9\tnoarch\n"
    entry = locked(read(rocky(text)), modules="proprietary", driver="580.95.05")
    assert not {"nvidia-open", "kmod-nvidia-open-dkms"} & set(versions(entry, "driver"))


def test_a_kernel_whose_kernel_devel_is_not_offered_is_refused_unless_it_is_there() -> None:
    other = "5.14.0-570.99.1.el9_6.x86_64"
    there = read(rocky(kernel=other))
    assert versions(locked(there), "kernel") == {}
    without = dataclasses.replace(there, kernel=dataclasses.replace(there.kernel, headers=()))
    answer = solve(without, Intent(), worlds.matrix())
    assert not isinstance(answer, HostLock) or answer.driver_version is None, answer


@pytest.mark.parametrize("os", ["rhel-8", "rhel-9", "rhel-10", "rocky-8", "rocky-9", "rocky-10"])
def test_every_release_has_a_set_of_each_flavour_where_a_driver_has_it(os: str) -> None:
    matrix = worlds.matrix()
    for branch in ("575", "580", "590", "595", "610"):
        sets = [names for names in matrix.drivers[branch].packages if os in names.os]
        assert {names.flavour for names in sets} == {"open", "proprietary"}
    assert {names.flavour for names in matrix.drivers["620"].packages if os in names.os} == {"open"}


def test_a_host_without_an_answer_of_dnf_is_not_resolved() -> None:
    capture = rocky()
    commands = {line: answer for line, answer in capture.commands.items() if not line.startswith("dnf offers ")}
    answer = solve(read(capture.model_copy(update={"commands": commands})), Intent(), worlds.matrix())
    assert isinstance(answer, NoSolution)
