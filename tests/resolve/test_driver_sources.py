"""Whose driver: Ubuntu's names, and NVIDIA's repository beside the distribution's, never taken for one another."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.model.facts import HostFacts, OfferedPackage, OsRelease
from provisioner.model.intent import Intent, Policy
from provisioner.model.stack import HostLock
from provisioner.plan.order import host_plan
from provisioner.render.project import project
from provisioner.resolve import NoSolution
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
