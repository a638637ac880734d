"""Each check passes on a host that is as locked, fails on its own fault, and is unknown when it could not look."""

from __future__ import annotations

import json
import os
import re
import shlex
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from provisioner.checks import container, driver, packages, runtime, system, tunnel, units
from provisioner.checks.check import Check, Seen, Verdict
from provisioner.checks.table import CHECKS
from provisioner.model.intent import Intent
from provisioner.model.resource import Guarded
from provisioner.model.stack import Choice, HostLock
from provisioner.model.tunnel import Tunnel, TunnelLock, TunnelPeer
from provisioner.resolve.lock import lock_text, make_lock
from provisioner.tunnels.assign import assign
from provisioner.tunnels.contract import Own
from provisioner.tunnels.kinds import KINDS
from tests.sockets import ASKS_A_NAME_SERVER, CONNECTED, HAS_ENDED, LISTENS, holder
from tests.tunnel_world import hub, key, spoke
from tests.world import DRIVER, DRIVER_DEB, KERNEL, entry

BY_ID = {check.id: check for check in CHECKS}
PROC = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {DRIVER}  Thu Jun  5 12:00:00 UTC 2025\nGCC version: 12\n"
MODULES = (
    f"file: {KERNEL} /lib/modules/{KERNEL}/updates/dkms/nvidia-current.ko\n"
    f"version:        {DRIVER}\nlicense:        NVIDIA\nvermagic:       {KERNEL} SMP preempt mod_unload\n"
)
PINS = (
    "# Written by provision\n\n"
    f"Package: nvidia-kernel-dkms nvidia-smi\nPin: version {DRIVER_DEB}\nPin-Priority: 1001\n\n"
    "Package: nvidia-persistenced\nPin: version 535.171.04-1~deb12u1\nPin-Priority: 1001\n\n"
    "Package: docker.io\nPin: version 20.10.24+dfsg1-1+deb12u1\nPin-Priority: 1001\n"
)
INSTALLED = "".join(
    f"{p.name}\t{p.version}\t{'hold' if p.hold else 'install'}\tinstalled\tok\n" for p in entry().packages
)
UNITS = "\n\n".join(f"Id={unit}\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled" for unit in units.UNITS)
NVML = {"driver": DRIVER, "cuda": 12020, "count": 1, "persistence": [1]}


def ok(text: str) -> Seen:
    return Seen(0, text)


APT = 'APT::Architecture "amd64";\nUnattended-Upgrade::Package-Blacklist "";\n'


def docker(**steps: tuple[int, str]) -> Seen:
    """What the look at Docker's socket gives; `steps` replaces answers, and ends where one is an error."""
    good = {
        "info": (200, json.dumps({"ServerVersion": "20.10.24", "Driver": "overlay2"})),
        "create": (201, '{"Id":"00","Warnings":[]}'),
        "start": (204, ""),
        "wait": (200, '{"Error":null,"StatusCode":0}'),
        "logs": (200, "\x01\x00\x00\x00\x00\x00\x00\x14provision-check-ran\n"),
        "remove": (204, ""),
    }
    said = []
    for step, answer in good.items():
        status, body = steps.get(step, answer)
        said.append((step, status, body))
        if not 200 <= status < 300:
            break
    return ok(ascii(said) + "\n")


ABSENT = Seen(1, "", "cat: /some/file: No such file or directory\n")

PING = "5 packets transmitted, 5 received, 0% packet loss, time 803ms\nrtt min/avg/max/mdev = 1.1/1.5/2.0/0.2 ms\n"
LOST = "5 packets transmitted, 0 received, 100% packet loss, time 1000ms\n"
NFT_RULES = """table inet provision {
	chain input {
		type filter hook input priority -10; policy accept;
		iifname != "prov0" accept
		ct state established,related accept
		ip saddr 10.87.0.1 tcp dport 22 accept
		counter packets 0 bytes 0 drop
	}
}
"""
IPTABLES_RULES = """-N PROVISION-IN
-A PROVISION-IN -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PROVISION-IN -s 10.87.0.1/32 -p tcp -m tcp --dport 22 -j ACCEPT
-A PROVISION-IN -s 10.87.0.1/32 -p udp -m udp --dport 30000:32767 -j ACCEPT
-A PROVISION-IN -j DROP
"""
TUNNEL = assign([spoke("rig-01", path_mtu=1500), hub()])["rig-01"]
SPECS = {"cdi": Choice(value="present"), "toolkit": Choice(value="nvidia-container-toolkit 1.20.0-1")}
JOINED = entry(intent=Intent(tunnel=spoke("rig-01").wish), tunnel=TUNNEL, **SPECS)

# What a host that is exactly as locked answers.
FITTING: dict[str, Seen] = {
    driver.LOADED: ok(f"{DRIVER}\n"),
    driver.PROC: ok(PROC),
    driver.MODULES: ok(MODULES),
    driver.KERNELS: ok(f"running {KERNEL}\ninstalled {KERNEL}\n"),
    driver.LIBRARY: ok(f"/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.{DRIVER}\n"),
    driver.NVML: ok(json.dumps(NVML)),
    driver.SMI: ok(f"{DRIVER}\n"),
    driver.PCI: ok("0000:01:00.0\n"),
    driver.NOUVEAU_LOADED: ok("not loaded\n"),
    driver.NOUVEAU_BLACKLIST: ok("/etc/modprobe.d/provision-nouveau.conf:blacklist nouveau\n"),
    driver.INITRAMFS: ok(f"initramfs 200 /boot/initrd.img-{KERNEL}\nblacklist 100 /etc/modprobe.d/p.conf\n"),
    driver.SECURE_BOOT: ok("no-uefi\n"),
    driver.INSTALLER: ok(""),
    packages.INSTALLED: ok(INSTALLED),
    packages.AUDIT: ok(""),
    packages.UPGRADE: ok(APT + "".join(f"held {p.name}\n" for p in entry().packages if p.hold)),
    packages.PREFERENCES: ok(PINS),
    packages.INTERRUPTED: ok(""),
    packages.LOCKS: ok("file 77 /var/lib/dpkg/lock\nlock 1: POSIX  ADVISORY  WRITE 9 08:01:78 0 EOF\n"),
    units.UNIT_STATES: ok(UNITS),
    runtime.CDI_ETC: ABSENT,
    runtime.CDI_RUN: ok(f"hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{DRIVER}\n"),
    runtime.DAEMON_JSON: ok('{"live-restore": true}\n'),
    container.DOCKER: docker(),
    system.CLOCK: Seen(0, "1000.500000000\n", sent=1000.4, answered=1000.6),
    system.SYNCHRONISED: ok("yes\n"),
    system.DISK: ok("Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda1 100 1 9999999 1% /\n"),
    system.MOUNTS: ok("/dev/vda1 / ext4 rw,relatime 0 0\n"),
    system.REBOOT: ok(""),
    system.CLIENTS: ok("record\nunit provision-clients.target loaded active active Clients\n"),
    system.STATE: ok("root 755\n"),
    tunnel.TUNNEL_UNITS: ok("active\n" + 8 * "inactive\n"),
    tunnel.OWN_WORDS: ok(""),
    tunnel.HEARD: ok(f"{key('hub')}\t990\n1000\n"),
    tunnel.WAY: ok(f"1440\nfar 10.87.0.1\n{PING}large 10.87.0.1\n{PING}"),
    tunnel.RULES: ok(NFT_RULES),
    tunnel.WAITING: ok(""),
}


def made(check_id: str, wanted: HostLock | None = None, **instead: Any) -> Verdict:
    """Make one check on a host that fits, but for the looks given by the name of their constant."""
    rooms = (driver, packages, runtime, system, tunnel)
    changed = {next(getattr(r, name) for r in rooms if hasattr(r, name)): seen for name, seen in instead.items()}
    unused = set(changed) - set(BY_ID[check_id].looks)
    assert not unused, "the case changes what the check does not look at"
    answers = {**FITTING, **changed}
    return BY_ID[check_id].make(wanted or JOINED, tuple(answers[look] for look in BY_ID[check_id].looks))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_passes_on_a_host_that_is_as_locked(check: Check) -> None:
    """Nothing to complain of: passed, or does not apply."""
    verdict = made(check.id)

    assert verdict.status in ("passed", "not-applicable"), verdict


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_unknown_when_the_host_did_not_answer(check: Check) -> None:
    """A look that ran into its time limit never makes a check pass."""
    wanted = JOINED
    verdict = check.make(wanted, tuple(Seen(124, "", "") for _ in check.looks))

    assert verdict.status in ("unknown", "failed"), verdict


def test_ids_are_unique_and_titles_short() -> None:
    """An id is what a person searches for; a title fits a table."""
    assert len(BY_ID) == len(CHECKS) >= 40
    assert all(re.fullmatch(r"[a-z0-9-]+", check.id) and len(check.title) < 50 for check in CHECKS)


@pytest.mark.parametrize("look", sorted({look for check in CHECKS for look in check.looks}), ids=lambda look: look[:30])
def test_looks_are_plain_posix_shell(look: str) -> None:
    """Every look parses in sh, where `shell://` runs it and stock backends may."""
    done = subprocess.run(["sh", "-n", "-c", look], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


OPEN_PROC = PROC.replace("NVIDIA UNIX x86_64 Kernel Module  ", "NVIDIA UNIX Open Kernel Module for x86_64  ")
TO_REBOOT = "scheduled USEC=1796090400000000\nscheduled WARN_WALL=1\nscheduled MODE=reboot\n"
TWO_KERNELS = f"running {KERNEL}\ninstalled {KERNEL}\ninstalled 6.1.0-51-amd64\n"
GRUB = f"{TWO_KERNELS}first {KERNEL}\n"

FAULTS: list[tuple[str, dict[str, Seen], str, str]] = [
    ("driver-loaded", {"LOADED": ABSENT}, "failed", "no NVIDIA module is loaded"),
    ("driver-loaded", {"LOADED": ok("535.216.03\n")}, "failed", f"loaded 535.216.03, lock {DRIVER}"),
    ("driver-loaded", {"LOADED": ok("535.261.3\n")}, "passed", "loaded 535.261.3"),
    ("driver-loaded", {"LOADED": Seen(1, "", "cat: Permission denied")}, "unknown", "Permission denied"),
    ("driver-proc", {"LOADED": ok("535.216.03\n")}, "failed", "/sys says 535.216.03"),
    ("driver-proc", {"PROC": ok("nonsense")}, "unknown", "no version that can be read"),
    ("driver-flavour", {"PROC": ok(OPEN_PROC)}, "failed", "loaded open, lock proprietary"),
    ("module-running", {"MODULES": ok("")}, "failed", f"no module for {KERNEL}"),
    ("module-running", {"MODULES": ok(MODULES.replace(DRIVER, "535.1.02"))}, "failed", "module 535.1.02"),
    ("module-next-boot", {"KERNELS": ok(TWO_KERNELS)}, "failed", "no module for 6.1.0-51-amd64"),
    ("module-next-boot", {"KERNELS": ok(GRUB)}, "passed", KERNEL),
    ("module-next-boot", {"KERNELS": ok(f"{GRUB}default saved\n")}, "unknown", "which kernel boots next"),
    (
        "module-next-boot",
        {"KERNELS": ok(f"{FITTING[driver.KERNELS].stdout}default saved\nfirst x\n")},
        "passed",
        "each",
    ),
    ("module-locked-kernels", {"MODULES": ok("")}, "failed", KERNEL),
    ("module-fits", {"MODULES": ok(MODULES.replace(f"vermagic:       {KERNEL}", "vermagic: 5.10"))}, "failed", "5.10"),
    ("module-flavour", {"MODULES": ok(MODULES.replace("NVIDIA\n", "Dual MIT/GPL\n"))}, "failed", "on disk open"),
    ("nvml-library", {"LIBRARY": ok("")}, "failed", "not installed"),
    ("nvml-library", {"LIBRARY": ok("/usr/lib/x/libnvidia-ml.so.550.163.01\n")}, "failed", "library 550.163.01"),
    ("nvml-answers", {"NVML": ok('{"error": 18, "said": "Driver/library version mismatch"}')}, "failed", "mismatch"),
    ("nvml-answers", {"NVML": Seen(127, "", "python3: not found")}, "unknown", "no python3"),
    ("nvml-driver", {"NVML": ok('{"error": 18}')}, "unknown", "names no driver"),
    ("nvml-driver", {"NVML": ok('{"driver": "535.216.03"}')}, "failed", "NVML 535.216.03"),
    ("gpu-count", {"PCI": ok("0000:01:00.0\n0000:02:00.0\n")}, "failed", "2 on the PCI bus, 1 in NVML"),
    ("gpu-count", {"PCI": Seen(3, "")}, "unknown", "exit 3"),
    ("gpus-as-locked", {"PCI": ok("")}, "failed", "0 on the PCI bus, 1 in the lock"),
    ("cuda-level", {"NVML": ok('{"cuda": 11040}')}, "failed", "driver carries 11.4, lock wants 12.2"),
    ("nvidia-smi", {"SMI": Seen(18, "Failed to initialize NVML: Driver/library version mismatch")}, "unknown", "18"),
    ("nouveau-not-loaded", {"NOUVEAU_LOADED": ok("loaded\n")}, "failed", "nouveau is loaded"),
    ("nouveau-blacklisted", {"NOUVEAU_BLACKLIST": ok("")}, "failed", "no file in modprobe.d"),
    ("nouveau-initramfs", {"INITRAMFS": ok("initramfs 50 /boot/initrd.img-x\nblacklist 100 /e\n")}, "failed", "before"),
    ("nouveau-initramfs", {"INITRAMFS": ok("blacklist 100 /e\n")}, "not-applicable", "without an initramfs"),
    ("persistence", {"UNIT_STATES": ok(UNITS.replace("=active", "=inactive"))}, "passed", "mode is on"),
    (
        "persistence",
        {"UNIT_STATES": ok(UNITS.replace("=active", "=failed")), "NVML": ok('{"persistence": [1, 0]}')},
        "failed",
        "not active",
    ),
    ("fabric-manager", {}, "not-applicable", "no NVSwitch"),
    ("fabric-manager", {"PCI": ok("0000:01:00.0\nswitch 0000:05:00.0\n")}, "passed", "1 NVSwitch bridges"),
    ("gpu-count", {"PCI": ok("0000:01:00.0\nswitch 0000:05:00.0\n")}, "passed", "1 on the PCI bus, 1 in NVML"),
    (
        "fabric-manager",
        {
            "PCI": ok("0000:01:00.0\nswitch 0000:05:00.0\n"),
            "UNIT_STATES": ok(
                UNITS.replace("fabricmanager.service\nLoadState=loaded", "fabricmanager.service\nLoadState=not-found")
            ),
        },
        "failed",
        "nvidia-fabricmanager is not installed",
    ),
    ("secure-boot", {"SECURE_BOOT": ok("   6   0   0   0   1\n")}, "failed", f"not signed for {KERNEL}"),
    ("secure-boot", {"SECURE_BOOT": ok("   6   0   0   0   0\n")}, "passed", "off"),
    ("secure-boot", {"SECURE_BOOT": Seen(3, "")}, "unknown", "cannot be read"),
    (
        "secure-boot",
        {"SECURE_BOOT": ok("   6   0   0   0   1\n"), "MODULES": ok(f"{MODULES}signer: DKMS module key\n")},
        "passed",
        "is signed",
    ),
    ("no-run-installer", {"INSTALLER": ok("/usr/bin/nvidia-uninstall\n")}, "failed", "nvidia-uninstall"),
    ("packages-version", {"INSTALLED": ok(INSTALLED.replace("nvidia-smi\t", "x\t"))}, "failed", "nvidia-smi is not"),
    ("packages-version", {"INSTALLED": ok(INSTALLED.replace(DRIVER_DEB, "535.9-1"))}, "failed", "535.9-1, lock"),
    ("packages-held", {"INSTALLED": ok(INSTALLED.replace("hold", "install"))}, "failed", "not held: nvidia-kernel"),
    ("packages-whole", {"INSTALLED": ok(f"{INSTALLED}bad\t1\tinstall\thalf-configured\tok\n")}, "failed", "bad (half"),
    ("packages-whole", {"AUDIT": ok("The following packages are only half configured\n")}, "failed", "dpkg --audit"),
    ("packages-whole", {"INSTALLED": ok("rubbish\n")}, "unknown", "cannot be read"),
    ("packages-pinned", {"PREFERENCES": ok("")}, "failed", "no pin above 1000 for nvidia-kernel-dkms"),
    ("packages-pinned", {"PREFERENCES": ok(PINS.replace("1001", "900"))}, "failed", "no pin above 1000"),
    ("packages-pinned", {"PREFERENCES": ok(PINS.replace("docker.io", "docker*"))}, "passed", "4 packages"),
    ("packages-pinned", {"PREFERENCES": ok(PINS.replace("20.10.24", "26.1"))}, "failed", "docker.io"),
    ("upgrade-leaves", {"UPGRADE": ok("held nvidia-smi\nheld docker.io\n")}, "failed", "free to change: nvidia-kernel"),
    ("upgrade-leaves", {"UPGRADE": ok("Calculating upgrade...\nInst curl [7] (8 x)\n")}, "passed", "simulated"),
    ("upgrade-leaves", {"UPGRADE": ok("Inst nvidia-smi [1] (2 x [amd64])\n")}, "failed", "install nvidia-smi"),
    ("upgrade-leaves", {"UPGRADE": ok("Remv docker.io [1]\n")}, "failed", "remove docker.io"),
    ("upgrade-leaves", {"UPGRADE": Seen(100, "", "E: Unmet dependencies.\n")}, "unknown", "Unmet dependencies"),
    ("dpkg-finished", {"INTERRUPTED": ok("/var/lib/dpkg/updates/0001\n")}, "failed", "dpkg --configure -a"),
    ("dpkg-free", {"LOCKS": ok("file 77 /l\nlock 1: POSIX  ADVISORY  WRITE 912 08:01:77 0 EOF\n")}, "failed", "912"),
    ("one-driver", {"INSTALLED": ok(f"{INSTALLED}libcuda1\t550.163.01-2\tinstall\tinstalled\tok\n")}, "failed", "550"),
    ("docker-active", {"UNIT_STATES": ok(UNITS.replace("=active", "=failed"))}, "failed", "is failed"),
    ("docker-active", {"UNIT_STATES": ok(UNITS.replace("=loaded", "=not-found"))}, "failed", "not installed"),
    ("docker-active", {"UNIT_STATES": Seen(1, "", "Failed to connect to bus: Host is down")}, "unknown", "bus"),
    ("docker-enabled", {"UNIT_STATES": ok(UNITS.replace("enabled", "disabled"))}, "failed", "is disabled"),
    ("containerd-active", {"UNIT_STATES": ok(UNITS.replace("=active", "=failed"))}, "failed", "is failed"),
    ("nvidia-smi", {"SMI": ok("535.216.03\n")}, "failed", "535.216.03"),
    ("containerd-active", {"UNIT_STATES": ok(UNITS.replace("=loaded", "=not-found"))}, "not-applicable", "own"),
    (
        "docker-answers",
        {"DOCKER": docker(info=(0, "[Errno 2] No such file or directory"))},
        "failed",
        "Docker's socket: [Errno 2]",
    ),
    ("docker-answers", {"DOCKER": docker(info=(500, '{"message": "not now"}'))}, "failed", "not now"),
    ("docker-answers", {"DOCKER": docker(info=(200, "<html>"))}, "failed", "something else"),
    ("docker-answers", {"DOCKER": Seen(127, "", "python3: not found")}, "unknown", "no python3"),
    ("docker-answers", {"DOCKER": ok("rubbish")}, "unknown", "could not be read"),
    ("docker-config", {"DAEMON_JSON": ABSENT}, "passed", "no daemon.json"),
    ("docker-config", {"DAEMON_JSON": ok("{,}")}, "failed", "not JSON"),
    ("docker-config", {"DAEMON_JSON": ok("[]")}, "failed", "not an object"),
    ("cdi-spec", {"CDI_RUN": ABSENT}, "failed", "no spec names a driver's library"),
    ("cdi-spec", {"CDI_ETC": ok("hostPath: /x/libcuda.so.535.216.03\n")}, "failed", "535.216.03, 535.261.03"),
    ("cdi-spec", {"CDI_ETC": Seen(1, "", "cat: Permission denied")}, "unknown", "Permission denied"),
    (
        "container-runs",
        {"DOCKER": docker(start=(500, '{"message": "OCI runtime create failed: cgroup"}'))},
        "failed",
        "did not start: OCI runtime create failed: cgroup",
    ),
    (
        "container-runs",
        {"DOCKER": ok(ascii([("info", 200, "{}"), ("create", 404, "No such image"), ("image", 500, "no space")]))},
        "failed",
        "no image could be made: no space",
    ),
    (
        "container-runs",
        {"DOCKER": ok(ascii([("info", 200, "{}"), ("image", 0, "no test program for riscv64")]))},
        "failed",
        "riscv64",
    ),
    ("container-runs", {"DOCKER": docker(logs=(200, ""))}, "failed", '"StatusCode":0'),
    ("container-runs", {"DOCKER": docker(remove=(409, '{"message": "busy"}'))}, "failed", "could not be removed"),
    ("container-runs", {"DOCKER": Seen(124, "")}, "failed", "within 90 s"),
    ("container-runs", {"DOCKER": ok("[]")}, "unknown", "no container was started"),
    ("clock-offset", {"CLOCK": Seen(0, "1003.0\n", sent=1000.4, answered=1000.6)}, "failed", "+2.4 s"),
    ("clock-offset", {"CLOCK": Seen(0, "990.0\n", sent=1000.4, answered=1000.6)}, "failed", "-10.4 s"),
    ("clock-offset", {"CLOCK": Seen(0, "999.0\n", sent=1000.4, answered=1000.6)}, "passed", "-1.4 s"),
    ("clock-offset", {"CLOCK": ok("1000.0\n")}, "unknown", "does not say"),
    ("clock-synchronised", {"UNIT_STATES": ok(UNITS.replace("=active", "=inactive"))}, "failed", "no service keeps"),
    ("clock-synchronised", {"SYNCHRONISED": ok("no\n")}, "failed", "not synchronised yet"),
    ("units-failed", {"UNIT_STATES": ok(f"{UNITS}\n\nId=foo.service\nActiveState=failed")}, "failed", "foo.service"),
    ("disk-root", {"DISK": ok("Filesystem\n/dev/vda1 100 1 1024 1% /\n")}, "failed", "/ has 1 MiB"),
    ("disk-boot", {"DISK": ok("F\n/dev/a 1 1 9999999 1% /\n/dev/b 1 1 1024 1% /boot\n")}, "failed", "1 MiB free"),
    ("root-writable", {"MOUNTS": ok("/dev/vda1 / ext4 ro,relatime 0 0\n")}, "failed", "read-only"),
    ("no-reboot-pending", {"REBOOT": Seen(1, "linux-image-amd64\n")}, "failed", "linux-image-amd64"),
    ("no-reboot-pending", {"REBOOT": ok(TO_REBOOT)}, "failed", "reboot scheduled for 2026-12-01 02:00 UTC"),
    ("no-reboot-pending", {"REBOOT": Seen(1, TO_REBOOT)}, "failed", "02:00 UTC; asked for"),
    ("no-reboot-pending", {"REBOOT": ok(TO_REBOOT.replace("=reboot", "=dry-reboot"))}, "passed", ""),
    ("newest-kernel", {"KERNELS": ok(TWO_KERNELS)}, "failed", "boots next 6.1.0-51-amd64"),
    (
        "clients-gated",
        {"CLIENTS": ok("unit provision-client@akash.service loaded active running Akash\n")},
        "failed",
        "provision-client@akash.service",
    ),
    ("clients-gated", {"CLIENTS": ok("unit provision-clients.target loaded inactive dead C\n")}, "passed", "closed"),
    ("state-private", {"STATE": ok("root 777\n")}, "failed", "mode 777"),
    ("state-private", {"STATE": ok("nobody 755\n")}, "failed", "nobody"),
    ("tunnel-up", {"TUNNEL_UNITS": ok("failed\n" + 8 * "inactive\n")}, "failed", "its unit is failed"),
    ("tunnel-heard", {"HEARD": ok(f"{key('hub')}\t700\n1000\n")}, "failed", "hub 300 s ago"),
    ("tunnel-heard", {"HEARD": ok(f"{key('hub')}\t0\n1000\n")}, "failed", "hub never"),
    ("tunnel-heard", {"HEARD": ok(f"{key('other')}\t999\n1000\n")}, "failed", "hub is not among its peers"),
    ("tunnel-heard", {"HEARD": Seen(1, "", "Unable to access interface: No such device\n")}, "failed", "No such"),
    ("tunnel-carries", {"WAY": ok(f"1440\nfar 10.87.0.1\n{LOST}large 10.87.0.1\n{LOST}")}, "failed", "0 of 100"),
    ("tunnel-carries", {"WAY": Seen(3, "")}, "failed", "no interface"),
    ("tunnel-narrow", {"RULES": ok("")}, "failed", "none of its rules is in force"),
    ("tunnel-narrow", {"RULES": ok(NFT_RULES.replace("22", "{ 22, 8000-8100 }"))}, "failed", "admits tcp/8000-8100"),
    ("tunnel-narrow", {"RULES": ok(NFT_RULES.replace("22", "2222"))}, "failed", "admits tcp/2222 and shuts out tcp/22"),
    ("tunnel-size", {"WAY": ok(f"1440\nfar 10.87.0.1\n{PING}large 10.87.0.1\n{LOST}")}, "failed", "1440 bytes"),
    ("tunnel-size", {"WAY": ok(f"1300\nfar 10.87.0.1\n{PING}large 10.87.0.1\n{PING}")}, "failed", "1440 in the lock"),
    ("change-settled", {"WAITING": ok("20261125-1\n")}, "failed", "20261125-1 is not confirmed yet"),
]


@pytest.mark.parametrize(
    ("check", "looks", "status", "words"), FAULTS, ids=[f"{n}-{case[0]}-{case[2]}" for n, case in enumerate(FAULTS)]
)
def test_each_fault_is_seen(check: str, looks: dict[str, Seen], status: str, words: str) -> None:
    """The check that is there for a fault finds it, and says what is wrong in words."""
    verdict = made(check, **looks)

    assert (verdict.status, words in verdict.detail) == (status, True), verdict


def test_rules_are_read_as_either_program_prints_them() -> None:
    """A range has a colon with iptables; a port of the networks counts like that of ssh."""
    admit = TUNNEL.model_copy(update={"admit": ("tcp/22", "udp/30000-32767")})
    wanted = entry(tunnel=admit, **SPECS)

    assert made("tunnel-narrow", wanted, RULES=ok(IPTABLES_RULES)).status == "passed"
    assert "shuts out udp/30000-32767" in made("tunnel-narrow", wanted).detail


def test_what_a_tunnel_adds_is_said_where_the_way_outside_is_known() -> None:
    way = f"1440\nfar 10.87.0.1\n{PING}large 10.87.0.1\n{PING}outside 10.87.0.1\n"
    outside = PING.replace("1.1/1.5/", "0.8/1.1/")

    assert made("tunnel-carries", WAY=ok(way + outside)).detail == "hub in 1.5 ms (0.4 added)"
    assert made("tunnel-carries", WAY=ok(way + LOST)).detail == "hub in 1.5 ms"


def test_every_check_has_a_case_that_fails() -> None:
    """A check that nothing can fail would prove nothing; two have tests of their own below."""
    failing = {check for check, _, status, _ in FAULTS if status == "failed"}

    failing |= {"unattended-upgrades", "tunnel-answers"}

    assert {check.id for check in CHECKS} == failing


def test_unattended_upgrades_must_be_kept_away() -> None:
    """Where it is installed, each held package must match an entry, which is a regular expression."""
    there = ok(f"{INSTALLED}unattended-upgrades\t2.9\tinstall\tinstalled\tok\n")
    entries = "".join(
        f'Unattended-Upgrade::Package-Blacklist:: "{pattern}";\n' for pattern in ("^nvidia-", r"^docker\.io$")
    )

    assert made("unattended-upgrades", INSTALLED=there).status == "failed"
    assert made("unattended-upgrades", INSTALLED=there, UPGRADE=ok(APT + entries)).status == "passed"
    assert made("unattended-upgrades", INSTALLED=there, UPGRADE=ok(entries)).status == "unknown"
    elsewhere = entries.replace("^nvidia-", "x")
    assert made("unattended-upgrades", INSTALLED=there, UPGRADE=ok(APT + elsewhere)).status == "failed"


def _joined_by(kind: str, role: str = "spoke") -> HostLock:
    return entry(tunnel=TunnelLock(kind=kind, role=role, host="rig-01"), **SPECS)  # type: ignore[arg-type]


def _keys_known(kind: str, role: str = "spoke") -> HostLock:
    lock = TunnelLock(kind=kind, role=role, host="rig-01", public_key="k", certificate="c")  # type: ignore[arg-type]
    return entry(tunnel=lock, **SPECS)


ONLINE = '{"BackendState": "Running", "Self": {"Online": true}}'
ASIDE = '{"BackendState": "NeedsLogin", "Self": {"Online": false}}'
PROXIES = '{"tcp": [{"name": "a", "status": "running"}], "udp": [{"name": "b", "status": "%s"}]}'


@pytest.mark.parametrize(
    ("kind", "role", "said", "status", "words"),
    [
        ("tailscale", "spoke", f"say tailscale\n{ONLINE}\n", "passed", "Running, online"),
        ("headscale", "spoke", f"say tailscale\n{ASIDE}\n", "failed", "NeedsLogin, not online"),
        (
            "tailscale",
            "spoke",
            "say tailscale\nfailed to connect to local tailscaled\n",
            "unknown",
            "failed to connect",
        ),
        ("tailscale", "spoke", "", "failed", "there is no tailscale on this host"),
        ("headscale", "hub", "say headscale\n\nwell\n", "passed", ""),
        ("headscale", "hub", "say headscale\nconnection refused\n", "failed", "connection refused"),
        ("cloudflare-tunnel", "spoke", 'say cloudflared\n{"status":200,"readyConnections":4}\n', "passed", "4 conn"),
        ("cloudflare-tunnel", "spoke", 'say cloudflared\n{"status":503,"readyConnections":0}\n', "failed", "0 conn"),
        ("cloudflare-tunnel", "spoke", "say no-curl\n", "unknown", "no curl"),
        ("frp", "spoke", f"say frpc\n{PROXIES % 'running'}\n", "passed", "2 running"),
        ("frp", "spoke", f"say frpc\n{PROXIES % 'start error'}\n", "failed", "b start error"),
        ("frp", "spoke", "say frpc\n{}\n", "failed", "it has no proxy"),
        ("frp", "hub", "", "not-applicable", "no words of its own"),
        ("rathole", "spoke", "", "not-applicable", "no words of its own"),
        ("wireguard", "spoke", "", "not-applicable", ""),
    ],
)
def test_what_a_tunnels_own_program_says(kind: str, role: str, said: str, status: str, words: str) -> None:
    """Kinds whose programs are not run in the lab are held to their own words."""
    verdict = made("tunnel-answers", _joined_by(kind, role), OWN_WORDS=ok(said))

    assert (verdict.status, words in verdict.detail) == (status, True), verdict


@pytest.mark.parametrize(
    ("kind", "role", "place"),
    [
        ("nebula", "spoke", 1),
        ("ssh-reverse", "spoke", 2),
        ("tailscale", "spoke", 3),
        ("headscale", "hub", 4),
        ("headscale", "spoke", 3),
        ("cloudflare-tunnel", "spoke", 5),
        ("frp", "spoke", 6),
        ("frp", "hub", 7),
        ("rathole", "spoke", 8),
    ],
)
def test_the_unit_that_carries_must_run(kind: str, role: str, place: int) -> None:
    """Of each kind and role another one."""
    wanted = _keys_known(kind, role)
    states = ["inactive"] * 9
    assert made("tunnel-up", wanted, TUNNEL_UNITS=ok("\n".join(states))).status == "failed"
    states[place] = "active"

    assert made("tunnel-up", wanted, TUNNEL_UNITS=ok("\n".join(states))).status == "passed"
    named = re.search("units='(.*)'", tunnel.TUNNEL_UNITS)
    assert named is not None
    assert named[1].split()[place] in tunnel_units(kind, role)


def _units_looked_at(folder: Path, states: list[str], entered_s_ago: list[float], pid: int) -> tuple[str, int]:
    """Run the look where systemctl gives the ssh unit's next state and age at each turn; what it said, and turns."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    for turn, (state, ago) in enumerate(zip(states, entered_s_ago, strict=True)):
        (folder / f"state.{turn}").write_text(state + "\n")
        (folder / f"entered.{turn}").write_text(f"ActiveEnterTimestampMonotonic={round((uptime - ago) * 1e6)}\n")
    (folder / "turn").write_text("0\n")
    for name, text in {
        "systemctl": """t=$(cat turn); [ -e state.$t ] || t=$(($(ls state.* | wc -l) - 1))
case "$*" in
    "-q is-active provision-ssh-tunnel.service") grep -q "^active" state.$t ;;
    "-q is-active "*) exit 3 ;;
    "is-active "*) shift; for u; do case $u in provision-ssh-*) cat state.$t;; *) echo inactive;; esac; done; exit 3 ;;
    show*MainPID*) echo MainPID=PID ;;
    show*) cat entered.$t ;;
esac
""".replace("PID ;;", f"{pid} ;;"),
        "sleep": "echo $(($(cat turn) + 1)) >turn\n",
    }.items():
        (folder / name).write_text("#!/bin/sh\n" + text)
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", tunnel.TUNNEL_UNITS],
        cwd=folder,
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, int((folder / "turn").read_text())


@pytest.mark.parametrize(
    ("states", "ago", "status", "turns"),
    [
        (["active"], [300], "passed", 0),
        (["failed"], [300], "failed", 0),
        (["activating", "activating", "active", "active"], [300, 300, 1, 12.5], "passed", 3),
        (["active", "active", "active"], [2, 7, 13], "passed", 2),
        (["activating", "failed"], [300, 300], "failed", 1),
        (["active", "activating"] * 20, [0.5, 300] * 20, "failed", 30),
        (["activating", "active"] * 20, [0.5, 0.6] * 20, "failed", 30),
    ],
)
def test_a_tunnel_that_still_dials_is_waited_for(
    tmp_path: Path, states: list[str], ago: list[float], status: str, turns: int
) -> None:
    """A unit that starts again and again runs now and then: that is no tunnel."""
    wanted = _keys_known("ssh-reverse")
    with holder(CONNECTED) as pid:
        said, waited = _units_looked_at(tmp_path, states, ago, pid)

    verdict = made("tunnel-up", wanted, TUNNEL_UNITS=ok(said))

    assert (verdict.status, waited) == (status, turns), (said, verdict)


@pytest.mark.parametrize("held", [ASKS_A_NAME_SERVER, LISTENS, HAS_ENDED])
def test_a_program_that_has_run_long_without_a_connection_is_no_tunnel(tmp_path: Path, held: str) -> None:
    """ssh waits for a name server that does not answer for longer than for a far end."""
    wanted = _keys_known("ssh-reverse")
    with holder(held) as pid:
        said, waited = _units_looked_at(tmp_path, ["active"], [300], pid)

    assert (made("tunnel-up", wanted, TUNNEL_UNITS=ok(said)).status, waited) == ("failed", 30)


def test_a_unit_that_runs_without_a_connection_is_said_to() -> None:
    """In words that tell where to look."""
    wanted = _keys_known("ssh-reverse")
    states = ["inactive", "inactive", "active", *6 * ["inactive"], "young provision-ssh-tunnel.service"]

    verdict = made("tunnel-up", wanted, TUNNEL_UNITS=ok("\n".join(states)))

    assert verdict.status == "failed"
    assert verdict.detail == (
        "its program runs, but has no connection: the other end does not answer, or does not take it"
    )


def tunnel_units(kind: str, role: str) -> tuple[str, ...]:
    """The units that the product itself puts there for a kind."""
    wish = {"kind": kind, "role": role, "hub": "hub", "endpoint": "203.0.113.1:4242", "range": "10.87.0.0/24"}
    wish |= {"server": "203.0.113.1:7000", "expose": ["https://a.example=http://127.0.0.1:80", "tcp/2222=22"]}
    lock = TunnelLock(
        kind=kind, role=role, host="rig-01", address="10.87.0.2", port=22001, public_key="k", certificate="c",
        hub="hub", hub_address="10.87.0.1", range="10.87.0.0/24",
        peers=(TunnelPeer(host="hub", public_key="k", allowed=("10.87.0.1/32",), endpoint="203.0.113.1:4242"),),
    )  # type: ignore[arg-type]  # fmt: skip
    found = KINDS[lock.kind].resources(Own("rig-01", Tunnel.model_validate(wish), lock))
    return next(resource for resource in found if isinstance(resource, Guarded)).units


def test_a_host_without_driver_or_docker() -> None:
    """What the lock does not want is not asked for."""
    plain = entry(driver_version=None, modules=None, cuda=None, runtime=None, packages=(), kernels=(), gpus=())
    verdicts = {check.id: made(check.id, plain) for check in CHECKS if check.id != "gpus-as-locked"}
    applying = {name for name, verdict in verdicts.items() if verdict.status != "not-applicable"}

    assert not {name for name in applying if name.startswith(("driver", "nvml", "module", "docker", "container"))}
    assert {"clock-offset", "units-failed", "packages-whole"} <= applying


def test_the_looks_that_run_anywhere_run_here() -> None:
    """The shell of every look that needs no privilege gives what its judge can read, on this very machine."""
    for look in (driver.KERNELS, driver.PCI, packages.INSTALLED, system.CLOCK, system.DISK, driver.INSTALLER):
        done = subprocess.run(["sh", "-c", look], capture_output=True, text=True, check=False)
        assert done.returncode in (0, 3), (shlex.quote(look), done.stderr)


@pytest.mark.parametrize("machine", container.PROGRAMS)
def test_the_program_of_the_container_is_an_executable(machine: str, tmp_path: Path) -> None:
    """Headers as elf(5) wants them, and where it is of this machine's kind it says its word and ends well."""
    program = tmp_path / "ran"
    program.write_bytes(container.PROGRAMS[machine])
    program.chmod(0o755)
    size, entry_point = program.stat().st_size, int.from_bytes(container.PROGRAMS[machine][24:32], "little")

    assert program.read_bytes()[:4] == b"\x7fELF"
    assert 0x400000 + 64 + 56 == entry_point < 0x400000 + size
    if os.uname().machine == machine:
        done = subprocess.run([program], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, f"{container.WORD}\n")


def test_docker_is_asked_over_its_socket(tmp_path: Path) -> None:
    """The look itself, against a socket that answers as Docker documents it: made, run, read, removed."""
    socket_path = tmp_path / "docker.sock"
    asked: list[str] = []
    there = [False]
    answers = {
        "GET /info": (200, b'{"ServerVersion": "26.1.5", "Driver": "overlay2"}'),
        "GET /containers": (200, b"\x01\x00\x00\x00\x00\x00\x00\x14provision-check-ran\n"),
        "POST /images": (200, b'{"status": "sha256:0"}'),
    }

    class Docker(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            first = self.rfile.readline().decode()
            length = 0
            while (line := self.rfile.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.rfile.read(length)
            asked.append(first.rsplit(" ", 1)[0])
            if asked[-1].startswith("POST /images"):
                there[0] = True
            status, body = answers.get("/".join(asked[-1].split("/")[:2]), (204, b""))
            if asked[-1].startswith("POST /containers/create") and not there[0]:
                status, body = 404, b'{"message": "No such image"}'
            self.wfile.write(b"HTTP/1.0 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)

    with socketserver.ThreadingUnixStreamServer(str(socket_path), Docker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        look = container.DOCKER.replace("/run/docker.sock", str(socket_path))
        done = subprocess.run(["sh", "-c", look], capture_output=True, text=True, check=False)
        server.shutdown()
    seen = Seen(done.returncode, done.stdout, done.stderr)

    assert {name: made(name, DOCKER=seen).status for name in ("docker-answers", "container-runs")} == {
        "docker-answers": "passed",
        "container-runs": "passed",
    }
    assert [line.split("?")[0].split("-check-")[0] for line in asked] == [
        "GET /info",
        "POST /containers/create",
        "POST /images/create",
        "POST /containers/create",
        "POST /containers/provision",
        "POST /containers/provision",
        "GET /containers/provision",
        "DELETE /containers/provision",
    ]


def test_where_cdi_is_off_no_spec_may_lie_there() -> None:
    """Lium's hosts go through the hook; a spec that is left over would win."""
    off = entry(cdi=Choice(value="absent"), toolkit=SPECS["toolkit"])
    check = next(check for check in CHECKS if check.id == "cdi-spec")
    spec = ok("hostPath: /x/libcuda.so.535.216.03\n")

    assert check.make(off, (ABSENT, ABSENT)).status == "passed"
    assert check.make(off, (ABSENT, spec)).status == "failed"
    assert check.make(entry(), (ABSENT, spec)).status == "not-applicable"


def test_the_checks_read_a_lock_whose_hosts_share_an_entry(tmp_path: Path) -> None:
    """The file that `provision resolve` writes is given to pytest itself, as Molecule's verifier does."""
    text = lock_text(make_lock({"rig-01": entry(), "rig-02": entry()}, "0" * 64))
    assert '"same_as"' in text
    (tmp_path / "provision.lock").write_text(text, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(
        "def test_both(lock):\n    assert lock.hosts['rig-02'] == lock.hosts['rig-01']\n", encoding="utf-8"
    )
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "provisioner.checks.conftest", "test_it.py"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
