"""What a capture says of a host, one file per question; `read` answers all of them."""

from __future__ import annotations

from datetime import datetime

from provisioner.facts import (
    driver,
    gpus,
    kernel,
    machine,
    nvml,
    offers,
    os_release,
    packages,
    rpm_packages,
    runtime,
    sources,
    trial,
    tunnel,
    units,
)
from provisioner.model.capture import UNKNOWN, Capture
from provisioner.model.facts import HostFacts
from provisioner.model.manager import manager_of


def read(capture: Capture, *, now: datetime | None = None) -> HostFacts:
    """Return the facts; what the capture does not show is UNKNOWN. `now` is the controller's time of the capture."""
    os = os_release.read(capture)
    kernels = kernel.read(capture)
    dnf = os is not UNKNOWN and manager_of(os.id) == "dnf"
    installed, patterns = rpm_packages.read(capture) if dnf else packages.read(capture)
    services = units.read(capture)
    known_sources = rpm_packages.sources(capture) if dnf else sources.read(capture)
    return HostFacts(
        host=capture.host,
        taken_at=capture.taken_at,
        os=os,
        kernel=kernels,
        gpus=gpus.read(capture),
        nvswitches=gpus.nvswitches(capture),
        driver=driver.read(capture, os, kernels.running, installed),
        packages=installed,
        package_patterns=patterns,
        dpkg_interrupted=False if dnf else packages.interrupted(capture, installed),
        offers=rpm_packages.offers(capture) if dnf else offers.read(capture),
        runtime=runtime.read(capture, services),
        nvml=nvml.read(capture),
        units=services,
        failed_units=units.failed(capture),
        disk_free_mib=machine.disk_free_mib(capture),
        memory_mib=machine.memory_mib(capture),
        swap_mib=machine.swap_mib(capture),
        clock_skew_s=machine.clock_skew_s(capture, now or capture.taken_at),
        boot_identity=machine.boot_identity(capture),
        shutdown=machine.shutdown(capture),
        virtualization=machine.virtualization(capture),
        components=() if dnf else sources.components(known_sources),
        sources=known_sources,
        tunnel=tunnel.read(capture, kernels.running),
        trial=trial.read(capture),
        enrolled_before=trial.enrolled_before(capture),
    )


__all__ = ["read"]
