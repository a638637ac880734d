"""Hosts really broken: doctor's first finding names what was done, and `--fix` mends what a plan can mend.

One host of Debian 12 with a driver of stand-ins (tests/lab/standins.py), which DKMS really builds in seconds. Each step
breaks it in one way, asks, mends it, and leaves it as locked and enrolled. What is proven is that the evidence of a real
dpkg, DKMS, systemd, Docker and boot is understood; the cards and what they say are simulated.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provisioner.adapters.lab import Host, Lab
from provisioner.errors import Exit
from tests.lab import standins
from tests.lab.conftest import ssh
from tests.lab.operator import LONG, Operator

pytestmark = pytest.mark.lab

HOST = "rig-doc"
DRIVER, OLDER, BROKEN = "580.159.03", "580.95.05", "580.126.09"
SLOW = ("--timeout", "400")
NOW = ("--yes", "--interrupt", *SLOW)
APT = "DEBIAN_FRONTEND=noninteractive apt-get -y -q --allow-downgrades --allow-change-held-packages -o Dpkg::Use-Pty=0"
NAMES = ("cuda-drivers", "nvidia-kernel-dkms", "libnvidia-ml1", "libcuda1", "nvidia-smi", "nvidia-persistenced")


class Clinic(Operator):
    """An operator whose host serves with a driver of stand-ins."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        super().__init__(lab, folder)
        self.environment["COLUMNS"] = "120"

    @property
    def host(self) -> Host:
        return self.lab.host(HOST)

    def root(self, script: str) -> str:
        """Run a script as root on the host; it must end well."""
        done = ssh(self.lab, HOST, "sudo bash -eu -s", given=script.encode())
        assert done.rc == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def look(self) -> dict[str, Any]:
        """What doctor says, as JSON; a finding that costs makes it exit with 1."""
        done = subprocess.run(
            self.argv("doctor", HOST, "--json", *SLOW),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (Exit.OK, Exit.FAILED), done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["failures"] == []
        found: dict[str, Any] = answer["hosts"][0]
        return found

    def found(self) -> list[str]:
        return [finding["mechanism"] for finding in self.look()["findings"]]


@dataclass(frozen=True)
class Fault:
    """A way to break the host: what doctor must find first, and how it is mended: by `--fix`, or by this script."""

    name: str
    first: str
    do: str
    undo: str = ""  # empty: --fix
    reboots: bool = False  # the fault shows only after a reboot
    only_long: bool = False

    @property
    def by_plan(self) -> bool:
        return not self.undo


def versions(version: str) -> str:
    return " ".join(f"{name}={version}-1" for name in NAMES)


FAULTS = (
    Fault(
        "upgrade-without-reboot",
        "driver-replaced-under-loaded-module",
        f"{APT} install {versions(OLDER)}",
    ),
    Fault(
        "dkms-cannot-build",
        "dkms-build-fails",
        f"! {APT} install {versions(BROKEN)}",
    ),
    Fault(
        "libraries-of-another-origin",
        "driver-packages-of-several-versions",
        "cd /tmp; apt-get -q download libnvidia-ml1=535.261.03-1~deb12u1; dpkg -i --force-all libnvidia-ml1_535*.deb",
    ),
    Fault(
        "headers-gone-and-module-with-them",
        "kernel-headers-missing",
        f"{APT} purge linux-headers-amd64 linux-headers-$(uname -r); dkms remove nvidia/{DRIVER} --all",
        reboots=True,
    ),
    Fault(
        "nouveau-after-a-reboot",
        "nouveau-holds-the-cards",
        "rm /etc/modprobe.d/provision-nouveau.conf; update-initramfs -u",
        reboots=True,
    ),
    Fault(
        "holds-broken",
        "driver-not-held",
        f"{APT} install unattended-upgrades; apt-mark unhold $(apt-mark showhold)\n"
        "rm /etc/apt/apt.conf.d/52provision-unattended-upgrades /etc/apt/preferences.d/provision.pref\n"
        "printf 'APT::Periodic::Update-Package-Lists \"1\";\\nAPT::Periodic::Unattended-Upgrade \"1\";\\n'"
        " >/etc/apt/apt.conf.d/20auto-upgrades",
    ),
    Fault(
        "daemon-json-overwritten",
        "daemon-json-overwritten",
        "cd /etc/docker; cp daemon.json daemon.json.old; echo '{\"log-driver\": \"json-file\"}' >daemon.json\n"
        "systemctl restart docker",
    ),
    Fault(
        "stale-cdi-spec",
        "cdi-spec-of-another-driver",
        f"sed -i 's/{DRIVER}/{OLDER}/g' /var/run/cdi/nvidia.yaml; touch /usr/lib/x86_64-linux-gnu/libcuda.so.{OLDER}",
    ),
    Fault(
        "toolkit-removed",
        "runtime-program-missing",
        f"{APT} purge nvidia-container-toolkit nvidia-container-toolkit-base",
    ),
    Fault(
        "dpkg-killed",
        "dpkg-interrupted",
        "dpkg -i /srv/standins/slow_1_all.deb >/dev/null 2>&1 & sleep 2; pkill -9 -x dpkg; sleep 1",
    ),
    Fault(
        "persistence-daemon-died",
        "persistence-daemon-failed",
        "systemctl kill -s SEGV nvidia-persistenced; sleep 1",
    ),
    Fault(
        "apt-lock",
        "package-database-locked",
        "setsid python3 -c \"import fcntl,time; f=open('/var/lib/dpkg/lock-frontend','w'); "
        "fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(300)\" >/dev/null 2>&1 </dev/null & sleep 1",
        undo="pkill -f lock-frontend",
    ),
    Fault(
        "boot-full",
        "boot-full",
        "cp -a /boot /root/boot; mount -t tmpfs -o size=16m none /boot; cp -a /root/boot/vmlinuz-* /boot\n"
        "! update-initramfs -c -k $(uname -r)",
        undo="umount /boot; rm -r /root/boot",
    ),
    Fault(
        "disk-full",
        "disk-nearly-full",
        "mkdir -p /var/lib/containerd; mount -t tmpfs -o size=64m none /var/lib/containerd",
        undo="umount /var/lib/containerd",
    ),
    Fault(
        "kernel-without-module",
        "next-kernel-without-module",
        "k=$(uname -r); n=${k/6.1.0-/6.1.0-9}; cp /boot/vmlinuz-$k /boot/vmlinuz-$n; cp /boot/initrd.img-$k /boot/initrd.img-$n\n"
        "mkdir -p /lib/modules/$n",
        undo="k=$(uname -r); n=${k/6.1.0-/6.1.0-9}; rm -r /boot/vmlinuz-$n /boot/initrd.img-$n /lib/modules/$n",
    ),
    Fault(
        "card-lost",
        "card-fell-off-the-bus",
        "echo 'lost 1' >>/run/provision-lab/nvml/0",
        undo="sed -i '/^lost/d' /run/provision-lab/nvml/0",
    ),
    Fault(
        "too-hot",
        "clocks-held-down-by-heat",
        "printf 'throttle_reasons 0x40\\ntemperature 97\\n' >>/run/provision-lab/nvml/0",
        undo="sed -i '/^throttle\\|^temperature 97/d' /run/provision-lab/nvml/0",
    ),
    Fault(
        "nvidia-blacklisted",
        "modprobe-keeps-nvidia-out",
        "echo 'blacklist nvidia' >/etc/modprobe.d/gaming.conf",
        undo="rm /etc/modprobe.d/gaming.conf",
        reboots=True,
    ),
)
