"""What apt is asked for, word for word."""

from __future__ import annotations

from provisioner.model.resource import AbsentPackage, Package
from provisioner.model.transaction import APT_GET, argv

KEPT = Package(name="libcuda1", version="535.216.03-1", unit="driver", archive="/kept/libcuda1.deb")
OTHER = Package(name="libnvidia-nvvm4", version="535.216.03-1", unit="driver", archive="/kept/libnvidia-nvvm4.deb")
OFFERED = Package(name="nvidia-smi", version="535.216.03-1", unit="driver")


def test_kept_archives_alone_come_with_a_name() -> None:
    """Paths alone are no request to apt, and then it refuses a host with unmet dependencies instead of mending it."""
    assert argv((KEPT, OTHER)) == (*APT_GET, "install", KEPT.archive, OTHER.archive, "libcuda1=535.216.03-1")


def test_whatever_has_a_name_needs_no_other() -> None:
    gone = AbsentPackage(name="nvidia-open-kernel-dkms")

    assert argv((KEPT, gone))[len(APT_GET) :] == ("install", KEPT.archive, "nvidia-open-kernel-dkms-")
    assert argv((KEPT, OFFERED))[len(APT_GET) :] == ("install", KEPT.archive, "nvidia-smi=535.216.03-1")
    assert argv((OFFERED,), "--simulate")[len(APT_GET) :] == ("--simulate", "install", "nvidia-smi=535.216.03-1")
