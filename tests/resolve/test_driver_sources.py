"""Whose driver: Ubuntu's names, and NVIDIA's repository beside the distribution's, never taken for one another."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.model.facts import HostFacts, OfferedPackage, OsRelease, Package
from provisioner.model.intent import Intent, Policy
from provisioner.model.resource import Service
from provisioner.model.stack import HostLock
from provisioner.plan.order import host_plan
from provisioner.render.project import project
from provisioner.resolve import NoSolution, explain
from provisioner.resolve.resolver import solve
from provisioner.resources.difference import difference
from provisioner.resources.wanted import wanted
from tests import world
from tests.resolve import worlds


def offer(name: str, version: str, source: str = "", depends: str = "", *, flat: bool = False) -> OfferedPackage:
    digest = hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    suite = "" if flat else "noble"
    return OfferedPackage(name, version, source or name, "amd64", digest, 1_000_000, depends, suite, flat)


UBUNTU_VERSION = "580.95.05-0ubuntu0.24.04.2"
UBUNTU_KERNEL = "6.8.0-90-generic"


def ubuntu(*suffixes: str) -> HostFacts:
    """An Ubuntu 24.04 that is offered these sets of branch 580, named as its archive names them."""
    source = "nvidia-graphics-drivers-580"
    found = {offer(f"linux-headers-{UBUNTU_KERNEL}", "6.8.0-90.91", "linux")}
    found |= {offer(name, "5:29.3.0-1~ubuntu.24.04~noble") for name in worlds.DOCKER_CE}
    for suffix in suffixes:
        common = f"nvidia-kernel-common-580{suffix.replace('-open', '')}"
        names = (
            f"nvidia-headless-no-dkms-580{suffix}",
            f"nvidia-utils-580{suffix.replace('-open', '')}",
            common,
        )
        found |= {offer(name, UBUNTU_VERSION, source) for name in names}
        found.add(offer(f"nvidia-dkms-580{suffix}", UBUNTU_VERSION, source, f"{common} (= {UBUNTU_VERSION})"))
    host = worlds.host("debian-12", "rtx-4090", kernel=UBUNTU_KERNEL)
    os = OsRelease("ubuntu-24.04", "Ubuntu 24.04.4 LTS", "noble")
    return replace(host, os=os, offers=tuple(sorted(found, key=lambda o: o.name)), components=("main", "restricted"))


@pytest.mark.parametrize(
    ("suffix", "flavour"),
    [("", "proprietary"), ("-open", "open"), ("-server", "proprietary"), ("-server-open", "open")],
)
def test_ubuntus_names_are_resolved_as_one_unit(suffix: str, flavour: str) -> None:
    """Module package, libraries and what they need, all in the same version, and headers of the kernel."""
    lock = solve(ubuntu(suffix), Intent(), worlds.matrix())

    assert isinstance(lock, HostLock)
    assert lock.modules is not None
    assert lock.modules.value == flavour
    driver = {p.name: p.version for p in lock.packages if p.unit == "driver"}
    assert set(driver.values()) == {UBUNTU_VERSION}
    assert {f"nvidia-dkms-580{suffix}", f"nvidia-headless-no-dkms-580{suffix}"} < set(driver)
    assert f"nvidia-kernel-common-580{suffix.replace('-open', '')}" in driver
    assert f"linux-headers-{UBUNTU_KERNEL}" in {p.name for p in lock.packages}


def test_an_ubuntu_host_is_rendered_and_ansible_reads_it(tmp_path: Path) -> None:
    """Rendered and syntax-checked; no Ubuntu host was ever changed by it."""
    lock = solve(ubuntu("-server-open"), Intent(), worlds.matrix())
    assert isinstance(lock, HostLock)
    plan = host_plan(
        "rig-01", lock, difference(wanted(lock), world.bare_facts(), world.bare_capture(lock)), enrolled=False
    )
    run = project([plan], {"rig-01": {"ansible_host": "192.0.2.1"}}, run="r1", made_by="t", made_at="2026-11-24")
    for name, text in run.files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "--syntax-check", "site.yml"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"nvidia-dkms-580-server-open={UBUNTU_VERSION}" in run.files["group_1.yml"]
    assert "nvidia-dkms-580-server-open" in run.files["files/group_1/etc/apt/preferences.d/provision.pref"]


VENDOR = "580.95.05-1"


def with_vendor(**changes: object) -> HostFacts:
    """Debian 12 with its own drivers and NVIDIA's repository beside it, which calls packages by the same names."""
    host = worlds.host("debian-12", "rtx-3090")
    assert isinstance(host.offers, tuple)
    kernel = offer("nvidia-kernel-dkms", VENDOR, "nvidia-graphics-drivers", flat=True)
    root = offer(
        "cuda-drivers",
        VENDOR,
        "nvidia-graphics-drivers",
        f"nvidia-kernel-dkms (= {VENDOR}), libcuda1 (= {VENDOR})",
        flat=True,
    )
    library = offer("libcuda1", VENDOR, "nvidia-graphics-drivers", flat=True)
    return replace(host, offers=(*host.offers, kernel, root, library), **changes)  # type: ignore[arg-type]


def from_source(which: str) -> HostLock | NoSolution:
    policy = Policy.model_validate({"driver_source": which})
    return solve(with_vendor(), Intent(policy=policy), worlds.matrix())


def test_nvidias_own_driver_is_one_unit_of_its_source() -> None:
    lock = from_source("vendor")

    assert isinstance(lock, HostLock)
    assert lock.vendor_driver
    driver = {p.name: p.version for p in lock.packages if p.unit == "driver"}
    assert driver == {"cuda-drivers": VENDOR, "libcuda1": VENDOR, "nvidia-kernel-dkms": VENDOR}


def test_the_distributions_driver_is_not_mixed_with_it() -> None:
    lock = from_source("distribution")

    assert isinstance(lock, HostLock)
    assert not lock.vendor_driver
    assert all(p.version.startswith("535.") for p in lock.packages if p.name in ("libcuda1", "nvidia-kernel-dkms"))
    assert "cuda-drivers" not in {p.name for p in lock.packages}


def test_a_source_that_the_host_does_not_have_is_a_conflict_with_its_reason() -> None:
    """The words name the policy, so that one knows what to take back."""
    answer = solve(worlds.host("debian-12", "rtx-3090"), Intent(policy=Policy(driver_source="vendor")), worlds.matrix())

    assert isinstance(answer, NoSolution)
    kinds = {claim.kind for conflict in answer.conflicts for claim in conflict.claims}
    assert kinds == {"wanted-driver-source", "driver-not-offered"}


@pytest.mark.parametrize(
    ("asked", "network", "found"),
    [("auto", "lium", "cgroupfs"), ("auto", "akash", None), ("systemd", "akash", "systemd")],
)
def test_the_cgroup_driver_follows_request_and_networks(asked: str, network: str, found: str | None) -> None:
    """Lium's installer sets cgroupfs; where nobody minds it is left to the owner."""
    policy = Policy.model_validate({"cgroup_driver": asked})
    lock = solve(worlds.host("debian-12", "rtx-3090"), Intent(networks=(network,), policy=policy), worlds.matrix())

    assert isinstance(lock, HostLock)
    assert lock.cgroup_driver == found


def behind_nvswitch(*offered: str, installed: str = "") -> HostFacts:
    """An Ubuntu server with four NVSwitch bridges that is offered the fabric manager in these versions."""
    host = ubuntu("-server")
    assert isinstance(host.offers, tuple) and isinstance(host.packages, dict)
    managers = (offer("nvidia-fabricmanager-580", version, "fabric-manager-580") for version in offered)
    packages = dict(host.packages)
    if installed:
        packages["nvidia-fabricmanager-580"] = Package("nvidia-fabricmanager-580", installed, held=False)
    return replace(host, offers=(*host.offers, *managers), nvswitches=4, packages=packages)


def test_the_fabric_manager_is_of_the_drivers_version() -> None:
    """A newer build of it is offered and left alone; its unit is to run after the reboot."""
    other = "580.126.09-0ubuntu0.24.04.1"
    lock = solve(behind_nvswitch(UBUNTU_VERSION, other, installed=other), Intent(), worlds.matrix())

    assert isinstance(lock, HostLock)
    (manager,) = (p for p in lock.packages if p.name == "nvidia-fabricmanager-580")
    assert (manager.version, manager.unit, manager.hold) == (UBUNTU_VERSION, "driver", True)
    units = [r for r in wanted(lock) if isinstance(r, Service) and r.name == "nvidia-fabricmanager.service"]
    assert [unit.after_reboot for unit in units] == [True]


def test_a_host_without_nvswitch_gets_no_fabric_manager_but_moves_one_that_is_there() -> None:
    """An installed one that stayed behind would keep its unit from starting."""
    offered = behind_nvswitch(UBUNTU_VERSION)
    without = solve(replace(offered, nvswitches=0), Intent(), worlds.matrix())
    there = behind_nvswitch(UBUNTU_VERSION, installed="580.65.06-0ubuntu0.24.04.1")
    moved = solve(replace(there, nvswitches=0), Intent(), worlds.matrix())

    assert isinstance(without, HostLock) and isinstance(moved, HostLock)
    assert "nvidia-fabricmanager-580" not in {p.name for p in without.packages}
    assert {p.version for p in moved.packages if p.name == "nvidia-fabricmanager-580"} == {UBUNTU_VERSION}


def test_no_driver_without_its_fabric_manager_behind_nvswitch() -> None:
    """Only another version of it is offered: a conflict in words, and not a host whose cards do not compute."""
    answer = solve(behind_nvswitch("580.126.09-0ubuntu0.24.04.1"), Intent(), worlds.matrix())

    assert isinstance(answer, NoSolution)
    (conflict,) = answer.conflicts
    kinds = {claim.kind for claim in conflict.claims}
    assert "fabric-manager-not-offered" in kinds
    text = explain.sentence(next(c for c in conflict.claims if c.kind == "fabric-manager-not-offered"))
    assert text == (
        "the cards are wired through 4 NVSwitch bridges and need the fabric manager of exactly their driver's version; "
        "this host's package sources offer none for 580.95.05"
    )
