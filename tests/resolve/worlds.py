"""Small worlds for the resolver's tests: a host in one line, with what Debian's archives really offer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

from provisioner.matrix.reader import Matrix, load
from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import (
    DriverFacts,
    HostFacts,
    KernelFacts,
    ModuleBuild,
    OfferedPackage,
    OsRelease,
    Package,
    PciGpu,
    RuntimeFacts,
)
from provisioner.resolve.hypothetical import Shelf

HERE = Path(__file__).parent
TAKEN = datetime(2026, 11, 24, 3, 7, tzinfo=timezone.utc)

RELEASES = {
    "debian-11": ("bullseye", "5.10.0-32-amd64"),
    "debian-12": ("bookworm", "6.1.0-50-amd64"),
    "debian-13": ("trixie", "6.12.117+deb13-amd64"),
}
COMPONENTS = {
    "debian-11": ("main", "contrib", "non-free"),
    "debian-12": ("main", "contrib", "non-free", "non-free-firmware"),
    "debian-13": ("main", "contrib", "non-free", "non-free-firmware"),
}


@lru_cache(maxsize=1)
def matrix() -> Matrix:
    return load()


@lru_cache(maxsize=64)
def offers(os: str, suites: tuple[str, ...], components: tuple[str, ...]) -> tuple[OfferedPackage, ...]:
    """What the named suites of a release offer: ("", "-security") is the release and its security updates."""
    codename = RELEASES[os][0]
    found = []
    for line in (HERE / "offers" / f"{os}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["suite"] in {codename + suite for suite in suites} and row["comp"] in components:
            found.append(
                OfferedPackage(
                    row["name"],
                    row["version"],
                    row["source"],
                    row["arch"],
                    row["sha256"],
                    row["size"],
                    row["depends"],
                    row["suite"],
                )
            )
    return tuple(found)


def _named_only(
    os: str, gpus: tuple[str, ...], name: str, memory_gib: int, vendor: Mapping[str, Iterable[str]]
) -> HostFacts:
    """A bare host of a release whose archive was not recorded: it is offered what the matrix names for it."""
    described = Shelf(matrix(), "vendor").host(os, gpus)
    return replace(
        described,
        host=name,
        taken_at=TAKEN,
        memory_mib=memory_gib * 1024 - 500,
        offers=(*(described.offers or ()), *vendor_offers(vendor)),
    )


TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
DOCKER_CE = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")


def vendor_offers(vendor: Mapping[str, Iterable[str]]) -> Iterable[OfferedPackage]:
    """Packages of vendors' repositories, made up here: their hashes are of their names and of no file."""
    for what, versions in vendor.items():
        for text in versions:
            names, version = {
                "toolkit": (TOOLKIT, f"{text}-1"),
                "docker-ce": (DOCKER_CE, f"5:{text}-1~debian.12~bookworm"),
            }.get(what, ((what,), f"{text}-1"))
            for name in names:
                digest = hashlib.sha256(f"{name} {version}".encode()).hexdigest()
                yield OfferedPackage(name, version, name, "amd64", digest, 1_000_000)


def cards(*models: str) -> tuple[PciGpu, ...]:
    """`rtx-3090` by its first PCI id, `10de:ffff` as it stands."""
    found = []
    for place, name in enumerate(models, 1):
        if ":" in name:
            vendor, device = name.split(":")
            subsystem = ""
        else:
            pci = matrix().gpus[name].pci[0]
            vendor, device, subsystem = pci.vendor, pci.device, (pci.subsystems or ("",))[0]
        found.append(PciGpu(f"0000:{place:02x}:00.0", vendor, device, subsystem))
    return tuple(found)


def host(
    os: str = "debian-12",
    *gpus: str,
    suites: tuple[str, ...] = ("",),
    components: tuple[str, ...] | None = None,
    installed: dict[str, str] | None = None,
    loaded: str | None = None,
    kernel: str | None = None,
    next_boot: str | None = None,
    name: str = "rig-01",
    memory_gib: int = 64,
    secure_boot: bool = False,
    vendor: Mapping[str, Iterable[str]] | None = None,
) -> HostFacts:
    """`host("debian-12", "rtx-3090", installed={"nvidia-kernel-dkms": "535.261.03-1"}, loaded="535.261.03")`.

    `vendor` is what repositories beside the archive offer: `{"toolkit": ["1.19.1"], "docker-ce": ["29.8.2"],
    "cuda-compat-13-0": ["580.95.05"]}`.
    """
    if os not in RELEASES:
        return _named_only(os, gpus, name, memory_gib, vendor or {})
    codename, release = RELEASES[os]
    running = kernel or release
    packages = {n: Package(n, v, held=False) for n, v in (installed or {}).items()}
    modules = (ModuleBuild(running, loaded, "proprietary"),) if loaded else ()
    parts = COMPONENTS[os] if components is None else components
    return HostFacts(
        host=name,
        taken_at=TAKEN,
        os=OsRelease(os, os, codename),
        kernel=KernelFacts(running, (running,), next_boot or running, ()),
        gpus=cards(*gpus),
        driver=DriverFacts(
            loaded=loaded,
            loaded_flavour="proprietary" if loaded else None,
            modules=modules,
            library=loaded,
            nouveau_loaded=False,
            nouveau_blacklisted=False,
            secure_boot=secure_boot,
        ),
        packages=packages,
        offers=(*offers(os, suites, parts), *vendor_offers(vendor or {})),
        runtime=RuntimeFacts(docker_active=False, docker_daemon_json=None),
        nvml=UNKNOWN,
        units={},
        failed_units=(),
        disk_free_mib={"/": 200000},
        memory_mib=memory_gib * 1024 - 500,
        swap_mib=0,
        clock_skew_s=0.0,
        boot_identity="boot-1",
        components=parts,
    )


def with_network(
    world: Matrix,
    name: str,
    *requirements: dict[str, object],
    client: str | tuple[str, ...] = "",
    breakages: tuple[dict[str, object], ...] = (),
) -> Matrix:
    """A matrix with one more network: `with_network(matrix(), "gridd", {"cuda": ">=13.0"}, client="3.0.0")`.

    Several clients stand newest first.
    """
    from provisioner.matrix.entries import Network

    versions = (client,) if isinstance(client, str) and client else tuple(client)
    claim = {"sources": ["https://example.org"], "seen": "2026-03-19", "confidence": "high"}
    network = Network.model_validate(
        {
            "id": name,
            "title": name,
            "name": name,
            "kind": "docker-worker",
            "as_of": "2026-03-19",
            **claim,
            "clients": [{"name": f"{name} worker", "versions": [{"version": v} for v in versions]}] if versions else [],
            "breakages": list(breakages),
            "profiles": [
                {
                    "id": "worker",
                    "title": "worker",
                    "default": True,
                    "requirements": [{"because": "its documentation says so", **r} for r in requirements],
                }
            ],
        }
    )
    return replace(world, networks={**world.networks, name: network})


def with_failure(
    world: Matrix, branch: str, package: str, version: str, kernels: str, confidence: str = "high"
) -> Matrix:
    """A matrix in which one more module does not build: `with_failure(matrix(), "535", "nvidia-kernel-dkms", …)`."""
    from provisioner.matrix.entries import DoesNotBuild

    fact = DoesNotBuild.model_validate(
        {
            "versions": [version],
            "kernels": kernels,
            "why": "an interface is another one there",
            "sources": ["https://example.org"],
            "seen": "2026-11-30",
            "confidence": confidence,
        }
    )
    entry = world.drivers[branch]
    sets = tuple(
        names.model_copy(update={"does_not_build": (*names.does_not_build, fact)})
        if names.kernel_package == package
        else names
        for names in entry.packages
    )
    return replace(world, drivers={**world.drivers, branch: entry.model_copy(update={"packages": sets})})
