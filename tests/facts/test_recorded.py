"""Whole facts of recorded hosts: real Debian machines of the lab (GPUs simulated), Ubuntu by hand, known failures."""

from __future__ import annotations

import re

import pytest

from provisioner import facts
from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import (
    DriverFacts,
    GpuHealth,
    KernelFacts,
    ModuleBuild,
    NvmlFacts,
    OsRelease,
    Package,
    PciGpu,
    RuntimeFacts,
    UnitState,
)
from tests.facts.hosts import known


@pytest.mark.parametrize(
    ("name", "os", "kernel", "device", "component"),
    [
        ("debian-11-bare.json", "debian-11", "5.10.0-46-amd64", "1b80", "non-free"),
        ("debian-12-bare.json", "debian-12", "6.1.0-56-amd64", "2204", "non-free-firmware"),
        ("debian-13-bare.json", "debian-13", "6.12.118+deb13-amd64", "2684", "non-free-firmware"),
    ],
)
def test_bare_debian_is_seen_whole(name: str, os: str, kernel: str, device: str, component: str) -> None:
    """A fresh host: its card, no driver anywhere, what its sources offer, nothing unknown that matters."""
    host = known(name)

    assert host.os is not UNKNOWN
    assert (host.os.id, host.os.architecture) == (os, "amd64")
    assert host.kernel == KernelFacts(
        running=kernel, installed=(kernel,), next_boot=kernel, headers=(), boots_once=False
    )
    assert host.gpus is not UNKNOWN
    assert {(gpu.device, gpu.slot) for gpu in host.gpus if gpu.slot == "0000:01:00.0"} == {(device, "0000:01:00.0")}
    assert host.driver == DriverFacts(
        loaded=None,
        loaded_flavour=None,
        modules=(),
        library=None,
        nouveau_loaded=True,
        nouveau_blacklisted=False,
        secure_boot=False,
        run_file_install=False,
        module_for_running=None,
    )
    assert host.components is not UNKNOWN
    assert component in host.components
    assert host.nvml == NvmlFacts(error="library-not-found", driver_version=None, cuda_version=None)
    assert host.failed_units == ()
    assert host.units is not UNKNOWN
    assert host.units["docker.service"].load == "not-found"
    assert host.units["ssh.service"].active == "active"
    assert host.package("docker.io") is None
    assert isinstance(host.package("openssh-server"), Package)
    assert isinstance(host.boot_identity, str)
    assert isinstance(host.clock_skew_s, float)
    assert abs(host.clock_skew_s) < 5


@pytest.mark.parametrize(
    ("name", "package", "version", "suite"),
    [
        ("debian-11-bare.json", "nvidia-kernel-dkms", r"470\.\d+\.\d+-\S+", "bullseye"),
        ("debian-12-bare.json", "nvidia-kernel-dkms", r"535\.216\.\d+-\S+bpo12\S+", "bookworm-backports"),
        ("debian-13-bare.json", "nvidia-kernel-dkms", r"550\.163\.\d+-\S+", "trixie"),
        ("debian-12-bare.json", "docker.io", r"20\.10\.24\S+", "bookworm"),
    ],
)
def test_offers_carry_checksum_and_suite(name: str, package: str, version: str, suite: str) -> None:
    """What can be installed, as the host's own indexes state it."""
    host = known(name)

    assert host.offers is not UNKNOWN
    found = [offer for offer in host.offers if offer.name == package and re.fullmatch(version, offer.version)]
    assert found
    assert {offer.origin for offer in found} == {suite}
    assert all(re.fullmatch("[0-9a-f]{64}", offer.sha256) and offer.size > 0 for offer in host.offers)
    assert not any(offer.name.endswith(("-dbg", "-dbgsym")) for offer in host.offers)


def test_debian_with_a_driver_agrees_with_itself() -> None:
    """A DKMS build in its three places, under Debian's own module name, and NVML's answer (simulated cards)."""
    host = known("debian-12-driver.json")

    assert host.driver == DriverFacts(
        loaded="535.309.01",
        loaded_flavour="proprietary",
        modules=(ModuleBuild("6.1.0-56-amd64", "535.309.01", "proprietary"),),
        library="535.309.01",
        nouveau_loaded=False,
        nouveau_blacklisted=True,
        secure_boot=False,
        run_file_install=False,
        module_for_running="535.309.01",
    )
    assert host.gpus is not UNKNOWN
    assert [gpu.bound_to for gpu in host.gpus] == ["nvidia", "nvidia"]
    assert host.nvml is not UNKNOWN
    assert (host.nvml.driver_version, host.nvml.cuda_version) == ("535.309.01", "12.2")
    assert [(gpu.name, gpu.slot, gpu.memory_mib, gpu.power_limit_w) for gpu in host.nvml.gpus] == [
        ("NVIDIA GeForce RTX 3090", "0000:01:00.0", 24576, 350.0),
        ("NVIDIA GeForce RTX 3090", "0000:21:00.0", 24576, 350.0),
    ]
    assert host.kernel.headers == ("6.1.0-56-amd64",)
    assert host.runtime.docker_active is True
    assert host.failed_units == ()


def test_debian_before_the_reboot_has_nothing_loaded() -> None:
    """On disk and in the library, not in the kernel; the persistence daemon failed for it."""
    before, after = known("debian-12-driver-before-reboot.json"), known("debian-12-driver.json")

    assert (before.driver.loaded, before.driver.library) == (None, "535.309.01")
    assert before.driver.modules == after.driver.modules
    assert before.nvml == NvmlFacts("NVML_ERROR_DRIVER_NOT_LOADED", None, None)
    assert before.failed_units == ("nvidia-persistenced.service",)
    assert before.boot_identity != after.boot_identity


def test_ubuntu_with_signed_modules() -> None:
    """Modules from Ubuntu's archive, GRUB pinned to the older kernel, a hold, a leftover and two broken packages."""
    host = known("ubuntu-22.04-signed-modules.yaml")

    assert host.os == OsRelease("ubuntu-22.04", "Ubuntu 22.04.5 LTS", "jammy", "amd64")
    assert host.kernel == KernelFacts(
        running="5.15.0-160-generic",
        installed=("5.15.0-160-generic", "5.15.0-161-generic"),
        next_boot="5.15.0-160-generic",
        headers=("5.15.0-160-generic",),
    )
    assert host.gpus == (PciGpu("0000:41:00.0", "10de", "20b5", "10de:1533", "nvidia"),)
    assert host.driver == DriverFacts(
        loaded="535.274.02",
        loaded_flavour="proprietary",
        modules=(
            ModuleBuild("5.15.0-160-generic", "535.274.02", "proprietary"),
            ModuleBuild("5.15.0-161-generic", UNKNOWN, "proprietary"),
        ),
        library="535.274.02",
        nouveau_loaded=False,
        nouveau_blacklisted=True,
        secure_boot=False,
        run_file_install=False,
        module_for_running="535.274.02",
    )
    assert host.package("docker-ce") == Package("docker-ce", "5:27.3.1-1~ubuntu.22.04~jammy", held=True)
    assert host.package("old-tool") is None
    assert host.package("virtual") is None
    assert host.packages is not UNKNOWN
    assert [name for name, package in host.packages.items() if not package.whole] == ["broken-thing", "half-done"]
    assert host.runtime == RuntimeFacts(
        docker_active=True,
        docker_daemon_json='{"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}, '
        '"default-runtime": "nvidia"}\n',
        docker_version="27.3.1",
        containers_running=3,
    )
    assert host.nvml == NvmlFacts(
        error=None,
        driver_version="535.274.02",
        cuda_version="12.2",
        gpus=(
            GpuHealth(0, "NVIDIA A100 80GB PCIe", "GPU-1f9a", "0000:41:00.0", 81920, 34, 61.25, 300.0, 0, 16),
        ),
    )  # fmt: skip
    assert host.units is not UNKNOWN
    assert host.units["sshd.service"] == UnitState("sshd.service", "loaded", "active", "enabled")
    assert host.units["ssh.service"].active == "active"
    assert host.units["absent.service"].load == "not-found"
    assert host.failed_units == ("snap.lxd.activate.service",)
    assert host.disk_free_mib == {"/": 578938, "/boot": 1546}
    assert (host.memory_mib, host.swap_mib) == (64174, 8191)
    assert host.boot_identity == "5a0a5b2e-5c1e-4d4d-9e7a-0f6f0d3f1f10:33"
    assert host.clock_skew_s == 2.25
    assert host.virtualization is None
    assert host.components == ("main", "restricted", "universe", "multiverse")
    assert host.offers is UNKNOWN


def test_ubuntu_upgraded_but_not_rebooted() -> None:
    """The classic mismatch, told apart in four places, and a kernel that boots next without a module."""
    host = known("ubuntu-24.04-open-dkms-after-upgrade.yaml")

    assert host.kernel == KernelFacts(
        running="6.8.0-9-generic",
        installed=("6.8.0-9-generic", "6.8.0-88-generic"),
        next_boot="6.8.0-88-generic",
        headers=("6.8.0-9-generic", "6.8.0-88-generic"),
    )
    assert host.driver == DriverFacts(
        loaded="570.133.20",
        loaded_flavour="open",
        modules=(ModuleBuild("6.8.0-9-generic", "570.195.03", "open"),),
        library="570.195.03",
        nouveau_loaded=False,
        nouveau_blacklisted=True,
        secure_boot=True,
        run_file_install=UNKNOWN,
        module_for_running="570.195.03",
    )
    assert host.gpus == (PciGpu("0000:01:00.0", "10de", "2684", "1458:40bf", "nvidia"),)
    assert host.nvml == NvmlFacts("NVML_ERROR_LIB_RM_VERSION_MISMATCH", None, None)
    assert host.package("libnvidia-compute-570") == Package(
        "libnvidia-compute-570", "570.195.03-0ubuntu0.24.04.1", held=True
    )
    assert host.package("nvidia-persistenced") is None
    assert host.package("docker.io") is UNKNOWN


@pytest.mark.parametrize(
    ("case", "place", "expected"),
    [
        ("nvml-mismatch-unattended-upgrades", "loaded", "460.56"),
        ("nvml-mismatch-unattended-upgrades", "library", "460.73.01"),
        ("nvml-mismatch-unattended-upgrades", "module_for_running", "460.73.01"),
        ("dkms-on-disk-module-older-than-userspace", "module_for_running", "595.80"),
        ("dkms-on-disk-module-older-than-userspace", "loaded_flavour", "open"),
        ("dkms-on-disk-module-older-than-userspace", "library", "595.84"),
        ("runfile-userspace-vs-custom-module", "run_file_install", True),
        ("runfile-userspace-vs-custom-module", "library", "570.124.04"),
        ("secure-boot-mok-not-enrolled", "secure_boot", True),
        ("secure-boot-mok-not-enrolled", "loaded", None),
        ("nouveau-still-loaded", "nouveau_loaded", True),
        ("nouveau-still-loaded", "loaded", None),
        ("blackwell-needs-open-modules", "loaded_flavour", "proprietary"),
        ("boot-full-initramfs-truncated", "modules", UNKNOWN),
    ],
)
def test_known_failures_show_in_the_driver(case: str, place: str, expected: object) -> None:
    """What people reported is read from captures that hold less than the probe's own, in other words."""
    host = known(f"failure-{case}.yaml")

    assert getattr(host.driver, place) == expected


def test_known_failures_show_elsewhere() -> None:
    """Cards from lspci, a runtime from docker info, and silence about what a narrow listing does not tell."""
    nouveau = known("failure-nouveau-still-loaded.yaml")
    docker = known("failure-docker29-minimum-api-1-44.yaml")
    board = known("failure-akash-aib-subsystem-vendor-not-detected.yaml")

    assert nouveau.gpus == (PciGpu("0000:01:00.0", "10de", "13c2", UNKNOWN, "nouveau"),)
    assert docker.runtime.docker_version == "29.0.4"
    assert docker.runtime.docker_active is True
    assert board.gpus is UNKNOWN
    assert nouveau.offers is UNKNOWN


def test_clock_is_compared_with_the_controllers_time() -> None:
    """A caller that knows better when the answer came may say so."""
    from datetime import timedelta

    from tests.facts.hosts import recorded

    capture = recorded("ubuntu-22.04-signed-modules.yaml")

    assert facts.read(capture, now=capture.taken_at + timedelta(seconds=5)).clock_skew_s == -2.75
