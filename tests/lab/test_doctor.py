"""Hosts really broken: doctor's first finding names what was done, and `--fix` mends what a plan can mend.

One host of Debian 12 with a driver of stand-ins (tests/lab/standins.py), which DKMS really builds in seconds. Each
step breaks it in one way, asks, mends it, and leaves it as locked and enrolled. What is proven is that the evidence of
a real dpkg, DKMS, systemd, Docker and boot is understood; the cards and what they say are simulated.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from provisioner.adapters.lab import Host, Lab
from provisioner.errors import Exit
from tests.lab import standins
from tests.lab.conftest import ssh
from tests.lab.operator import Operator

pytestmark = pytest.mark.lab

HOST = "rig-doc"
DRIVER, OLDER, BROKEN = "580.159.03", "580.95.05", "580.126.09"
SAME_LENGTH = "580.142.02"
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

    def fix_as_json(self) -> dict[str, Any]:
        """`--fix --json`: one document on standard output, whatever else is printed beside it."""
        done = subprocess.run(
            self.argv("doctor", HOST, "--fix", "--json", *NOW),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == Exit.OK, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def unbuildable(version: str) -> list[standins.StandIn]:
    """A branch whose module calls what this kernel has no more: every build of it fails, as with a kernel too new."""
    found = []
    for package in standins.driver(version):
        files = {
            path: text.replace("standin_init(void) {", "standin_init(void) { function_that_went_away();")
            if path.endswith("nvidia.c")
            else text
            for path, text in package.files.items()
        }
        found.append(replace(package, files=files))
    return found


SLOW_PACKAGE = standins.StandIn(
    "slow", "1", architecture="all", scripts={"postinst": "#!/bin/sh\nsleep 12\n", "prerm": "#!/bin/sh\n"}
)


@dataclass(frozen=True)
class Fault:
    """A way to break the host: what doctor must find first, and how it is mended: by `--fix`, or by this script."""

    name: str
    first: str
    do: str
    undo: str = ""  # empty: --fix
    reboots: bool = False  # the fault shows only after a reboot

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
        f"if {APT} install {versions(BROKEN)}; then exit 9; fi",
    ),
    Fault(
        "libraries-of-another-origin",
        "driver-packages-of-several-versions",
        "cd /tmp; apt-get -q download libnvidia-ml1=535.309.01-0+deb12u1; dpkg -i --force-all libnvidia-ml1_535*.deb",
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
        'printf \'APT::Periodic::Update-Package-Lists "1";\\nAPT::Periodic::Unattended-Upgrade "1";\\n\''
        " >/etc/apt/apt.conf.d/20auto-upgrades",
    ),
    Fault(
        "daemon-json-overwritten",
        "daemon-json-overwritten",
        'cd /etc/docker; cp daemon.json daemon.json.old; echo \'{"log-driver": "json-file"}\' >daemon.json\n'
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
        "dpkg -i /srv/standins/slow_1_all.deb >/dev/null 2>&1 & sleep 2; pkill -9 -x dpkg; sleep 1\n"
        "/usr/local/lib/provision-lab/userspace show  # what a dpkg of the lab does when it ends",
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
        'fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(300)" >/dev/null 2>&1 </dev/null & sleep 1',
        undo="pkill -f lock-frontend",
    ),
    Fault(
        "boot-full",
        "boot-full",
        "k=$(uname -r); n=${k/6.1.0-/6.1.0-9}; cp -a /boot /root/boot; cp -al /lib/modules/$k /lib/modules/$n\n"
        "mount -t tmpfs -o size=26m none /boot; cp -a /root/boot/{vmlinuz,config,initrd.img}-$k /boot\n"
        "cp /boot/vmlinuz-$k /boot/vmlinuz-$n; cp /boot/config-$k /boot/config-$n\n"
        "if update-initramfs -c -k $n; then exit 9; fi",
        undo="k=$(uname -r); umount /boot; rm -r /root/boot /lib/modules/${k/6.1.0-/6.1.0-9}",
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
        "k=$(uname -r); n=${k/6.1.0-/6.1.0-9}; cp /boot/vmlinuz-$k /boot/vmlinuz-$n\n"
        "cp /boot/initrd.img-$k /boot/initrd.img-$n\n"
        "mkdir -p /lib/modules/$n",
        undo="k=$(uname -r); n=${k/6.1.0-/6.1.0-9}; rm -r /boot/vmlinuz-$n /boot/initrd.img-$n /lib/modules/$n",
    ),
    Fault(
        "boot-image-not-written-anew",
        "initramfs-holds-another-driver",
        # mkinitramfs itself writes an image with a module of another version, as of before an upgrade without it
        "m=$(ls /lib/modules/$(uname -r)/updates/dkms/nvidia*.ko | grep -vE 'drm|uvm|modeset' | head -n 1)\n"
        f"cp -p $m /root/nvidia.ko; LC_ALL=C sed -i s/version={DRIVER}/version={SAME_LENGTH}/ $m\n"
        "basename $m .ko >>/etc/initramfs-tools/modules; update-initramfs -u; cp -p /root/nvidia.ko $m",
        undo="sed -i '/^nvidia/d' /etc/initramfs-tools/modules; update-initramfs -u; rm /root/nvidia.ko",
    ),
    Fault(
        "link-with-fewer-lanes",
        "link-narrower-than-it-was",
        "sed -ri 's/^(link_width|link_width_max) .*/\\1 8/' /run/provision-lab/nvml/0",
        undo="sed -ri 's/^(link_width|link_width_max) .*/\\1 16/' /run/provision-lab/nvml/0",
    ),
    Fault(
        "card-lost",
        "card-fell-off-the-bus",
        "echo 'lost 1' >>/run/provision-lab/nvml/0",
        undo="sed -i '/^lost/d' /run/provision-lab/nvml/0",
    ),
    Fault(
        "nvidia-blacklisted",
        "modprobe-keeps-nvidia-out",
        "echo 'blacklist nvidia' >/etc/modprobe.d/gaming.conf",
        undo="rm /etc/modprobe.d/gaming.conf",
        reboots=True,
    ),
)


@pytest.fixture(scope="module")
def clinic(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    repository = standins.build(
        tmp_path_factory.mktemp("standins"), (*standins.EVERYTHING, *unbuildable(BROKEN), SLOW_PACKAGE)
    )
    lab = lab_factory(f"{HOST}=bookworm:rtx-3090")
    unpacked = ssh(
        lab, HOST, f"sudo mkdir -p {standins.WHERE} && sudo tar xz -C {standins.WHERE}", given=repository.packed()
    )
    assert unpacked.rc == 0, unpacked.stderr
    folder = tmp_path_factory.mktemp("clinic")
    key = folder / "stand-ins.asc"
    key.write_text(repository.key, encoding="utf-8")
    found = Clinic(lab, folder)
    source = {
        "id": "stand-ins",
        "uri": f"copy:{standins.WHERE}",
        "suite": "/",
        "key": str(key),
        "fingerprint": repository.fingerprint,
    }
    variables = lab.folder / "host_vars"
    variables.mkdir(exist_ok=True)
    text = {"provision_networks": ["akash"], "provision_policy": {"sources": [source], "driver_source": "vendor"}}
    (variables / f"{HOST}.yml").write_text(json.dumps(text), encoding="utf-8")
    yield found


def test_01_a_host_that_serves_is_well(clinic: Clinic) -> None:
    """Nothing is found on it, and there is nothing to mend or to look ahead for."""
    clinic.run("resolve", *SLOW)
    clinic.run("apply", *NOW)

    look = clinic.look()
    assert look["findings"] == []
    assert (look["agreement"]["agrees"], look["counts"]["agrees"]) == (True, True)
    # noted at the enrolment that apply just made; every boot image of this real mkinitramfs could be read
    assert look["baseline"] is not None
    seen = {place["fact"]: place["seen"] for place in (*look["agreement"]["places"], *look["counts"]["places"])}
    assert {name for name, told in seen.items() if not told} == {"cards.advertised"}  # Akash's client is no container
    assert "nothing would change" in clinic.run("preflight", *SLOW)
    assert "nothing was found" in clinic.run("doctor", HOST, "--fix", *NOW)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_02_broken_found_and_mended(clinic: Clinic, fault: Fault) -> None:
    """What was done to the host is the first finding; afterwards nothing is left of it, and the host is as locked."""
    clinic.root(fault.do)
    if fault.reboots:
        clinic.host.reboot()
    found = clinic.found()
    assert found[:1] == [fault.first], found

    if fault.by_plan:
        # holds alone cost nothing yet: then doctor ends with 0, and so does the fix
        if fault.name == "persistence-daemon-died":
            told = clinic.fix_as_json()
            assert told["hosts"][0]["fix"]["mended"] == [fault.first]
            assert told["applied"]["hosts"][HOST]["state"] == "enrolled"
        else:
            said = clinic.run("doctor", HOST, "--fix", *NOW)
            assert "by the plan below" in said
            assert "✓ mended" in said
    else:
        clinic.root(fault.undo)
        if fault.reboots:
            clinic.host.reboot()
            clinic.run(
                "apply", *NOW
            )  # the CDI spec lies in /run, and the stand-in has no service that writes it at boot
    assert clinic.found() == []
    assert "Nothing to change" in clinic.run("plan", "--exit-code", *SLOW)


def test_03_what_no_plan_mends_is_explained(clinic: Clinic) -> None:
    """The steps, and no question: nothing is applied, and the exit code says that something is left."""
    before = clinic.runs()
    clinic.root("echo 'lost 1' >>/run/provision-lab/nvml/0")
    said = clinic.run("doctor", HOST, "--fix", *NOW, code=Exit.FAILED)
    clinic.root("sed -i '/^lost/d' /run/provision-lab/nvml/0")

    assert "mend     1. " in said
    assert "by the plan below" not in said
    assert clinic.runs() == before


def test_04_an_expired_key(clinic: Clinic, tmp_path: Path) -> None:
    """apt refuses the source; doctor names the key and the day it ended without asking apt."""
    keys = tmp_path / "gnupg"
    keys.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(keys), "--batch", "--quiet", "--no-tty", "--faked-system-time", "20260101T000000!"]
    made = [*gpg, "--passphrase", "", "--quick-generate-key", "an expired key of the lab", "ed25519", "sign", "30d"]
    subprocess.run(made, check=True, capture_output=True)
    key = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True).stdout
    subprocess.run(["gpgconf", "--homedir", str(keys), "--kill", "gpg-agent"], check=True)
    path = "/etc/apt/keyrings/expired.asc"
    assert ssh(clinic.lab, HOST, f"sudo mkdir -p /etc/apt/keyrings; sudo tee {path}", given=key).rc == 0
    clinic.root(f"echo 'deb [signed-by={path}] copy:/srv/nowhere /' >/etc/apt/sources.list.d/expired.list")
    finding = clinic.look()["findings"][0]
    clinic.root(f"rm {path} /etc/apt/sources.list.d/expired.list")

    assert finding["mechanism"] == "apt-key-expired"
    assert finding["evidence"][0]["text"].endswith("ended on 2026-01-31")
    assert clinic.found() == []


def test_05_a_plan_that_would_end_in_a_fault_is_refused(clinic: Clinic) -> None:
    """Something keeps nvidia out of the kernel: a reboot would not help, and plan, apply and preflight say so first."""
    clinic.root(
        "echo 'blacklist nvidia' >/etc/modprobe.d/gaming.conf\n"
        "rm /etc/modprobe.d/provision-nouveau.conf; update-initramfs -u"
    )
    clinic.host.reboot()
    plan = clinic.run("plan", *SLOW, code=Exit.FAILED)
    ahead = clinic.run("preflight", *SLOW, code=Exit.FAILED)
    clinic.run("apply", *NOW, code=Exit.FAILED)
    clinic.root("rm /etc/modprobe.d/gaming.conf")

    assert "blocked: " in plan
    assert "blacklist nvidia" in plan
    assert "  stop  " in ahead
    clinic.run("doctor", HOST, "--fix", *NOW)
    assert clinic.found() == []
