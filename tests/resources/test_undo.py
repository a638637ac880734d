"""Kept records become the resources of the state before them; several changes go back to what the oldest found."""

from __future__ import annotations

from typing import Any

from provisioner.model.history import HISTORY, Record, Stack
from provisioner.model.resource import (
    AbsentFile,
    AbsentPackage,
    CdiSpec,
    KeptFile,
    KernelModule,
    Package,
    RunningDriver,
    Service,
)
from provisioner.model.stack import Choice
from provisioner.resources.undo import undo
from tests import world

SUM = "a" * 64


def record(run: str, **parts: Any) -> Record:
    return Record.model_validate(
        {"run": run, "began": run, "at": "2026-11-24T03:07:00Z", "from": None, "driver": None, **parts}
    )


def keys(*records: Record) -> dict[str, Any]:
    return {resource.key: resource for resource in undo(records, (world.KERNEL,))}


def test_what_was_replaced_comes_from_its_archive_and_what_came_goes() -> None:
    """An upgraded package, a new one, a hold that was lost; the epoch's colon is written as apt writes it."""
    found = keys(
        record(
            "r1",
            packages={
                "docker.io": {"version": "5:20.1-1", "unit": "runtime", "held": True, "sha256": SUM},
                "runc": {"version": None, "unit": "runtime"},
                "nvidia-smi": {"version": "535.1-1", "unit": "driver", "held": False},
            },
        )
    )

    docker = found["package docker.io"]
    assert isinstance(docker, Package)
    assert (docker.version, docker.held) == ("5:20.1-1", True)
    assert docker.archive == f"{HISTORY}/r1/debs/docker.io_5%3a20.1-1_amd64.deb"
    assert found["package runc"] == AbsentPackage(name="runc", unit="runtime", purge=True)
    assert found["package nvidia-smi"] == Package(name="nvidia-smi", version="535.1-1", held=False, unit="driver")


def test_files_and_units() -> None:
    """A kept file is its copy, one that was not there goes; a unit that is gone with its package restarts nothing."""
    found = keys(
        record(
            "r1",
            files={
                "/etc/docker/daemon.json": {"sha256": SUM, "mode": "0600", "restarts": ["docker.service"]},
                "/etc/modprobe.d/x.conf": {"sha256": None, "initramfs": True},
            },
            units={
                "docker.service": {"there": False, "enabled": False, "active": False},
                "nvidia-persistenced.service": {"there": True, "enabled": True, "active": False, "after_reboot": True},
            },
        )
    )

    kept = found["file /etc/docker/daemon.json"]
    assert isinstance(kept, KeptFile)
    assert (kept.source, kept.mode, kept.restarts) == (f"{HISTORY}/r1/files/etc/docker/daemon.json", "0600", ())
    assert found["file /etc/modprobe.d/x.conf"] == AbsentFile(path="/etc/modprobe.d/x.conf", rebuilds_initramfs=True)
    assert found["service nvidia-persistenced.service"] == Service(
        name="nvidia-persistenced.service", enabled=True, active=False, after_reboot=True
    )
    assert "service docker.service" not in found


def test_several_changes_go_back_to_what_the_oldest_found() -> None:
    """The second change's archive of a package is of no use when the first one replaced it too."""
    first = record(
        "r1", packages={"x": {"version": "1", "sha256": SUM}}, driver={"version": "470.1", "flavour": "open"}
    )
    second = record("r2", packages={"x": {"version": "2", "sha256": SUM}, "y": {"version": "7", "sha256": SUM}})
    found = keys(first, second)

    assert (found["package x"].version, found["package x"].archive) == ("1", f"{HISTORY}/r1/debs/x_1_amd64.deb")
    assert found["package y"].archive == f"{HISTORY}/r2/debs/y_7_amd64.deb"
    assert found["running driver"] == RunningDriver(version="470.1", flavour="open")


def test_modules_of_the_stack_before_for_kernels_that_are_still_there() -> None:
    """A kernel that was removed meanwhile needs no module; without a stack before, no driver is wanted at all."""
    entry = world.entry(kernels=(world.KERNEL, "6.1.0-49-amd64")).model_dump(mode="json")
    found = keys(record("r1", **{"from": {"entry": entry, "matrix": "m"}}))

    modules = [resource.kernel for resource in found.values() if isinstance(resource, KernelModule)]
    assert modules == [world.KERNEL]
    assert keys(record("r1"))["running driver"] == RunningDriver(version=None, flavour=None)


def test_a_cdi_spec_goes_back_with_the_driver() -> None:
    """One of the newer driver would mount libraries that are gone."""
    entry = world.entry(cdi=Choice(value="present"), toolkit=Choice(value="nvidia-container-toolkit 1.20.0-1"))
    before = Stack(entry=entry, matrix="m").model_dump(mode="json")

    assert keys(record("r1", **{"from": before}))["CDI spec"] == CdiSpec(version=world.DRIVER)
    assert "CDI spec" not in keys(record("r1"))
