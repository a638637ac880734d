"""Healthy hosts as doctor's own look shows them, of any distribution, driver and cards; tests break them by editing.

What a real look gives was recorded on Debian 12 (tests/captures/debian-12-driver.json); here the same keys are filled
for other systems, so that every test starts from a host of which everything was seen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from provisioner.model.capture import Capture, CommandOutput
from provisioner.probe.request import (
    ALLOCATABLE,
    BOOT_MODULES,
    CDI_GONE,
    DOCTOR,
    DPKG,
    HANDED_OUT,
    IN_CONTAINERS,
    INITRAMFS,
    KEYRINGS,
    PROVIDER,
    Request,
)

TAKEN_AT = datetime(2026, 11, 24, 3, 7, tzinfo=timezone.utc)
NO_SUCH = "ls: cannot access 'x': No such file or directory\n"
UNITS_LINE = next(command.line for command in Request(DOCTOR).commands if command.line.startswith("systemctl show"))
DF_LINE = "df -B1M --output=file,avail " + " ".join(DOCTOR.disks)
XIDS_LINE = next(command.line for command in DOCTOR.commands if "Xid|Rm" in command.line).strip()
ENGINES_LINE = next(command.line for command in DOCTOR.commands if "-u docker" in command.line)
APT_LINE = next(command.line for command in DOCTOR.commands if "-u apt-daily" in command.line)
INITRAMFS_LINE = next(command.line for command in DOCTOR.commands if command.line.startswith("lsinitramfs"))
MAKE_LOG_LINE = next(command.line for command in DOCTOR.commands if "make.log" in command.line)
LOCK_LINE = next(command.line for command in DOCTOR.commands if "lock-frontend" in command.line)
MAPS_LINE = next(command.line for command in DOCTOR.commands if command.line.startswith("grep -hoE"))

SYSTEMS = {
    "debian-11": ("Debian GNU/Linux 11 (bullseye)", "bullseye", "5.10.0-46-amd64"),
    "debian-12": ("Debian GNU/Linux 12 (bookworm)", "bookworm", "6.1.0-56-amd64"),
    "debian-13": ("Debian GNU/Linux 13 (trixie)", "trixie", "6.12.118+deb13-amd64"),
    "ubuntu-20.04": ("Ubuntu 20.04.6 LTS", "focal", "5.15.0-139-generic"),
    "ubuntu-22.04": ("Ubuntu 22.04.5 LTS", "jammy", "6.8.0-60-generic"),
    "ubuntu-24.04": ("Ubuntu 24.04.3 LTS", "noble", "6.14.0-37-generic"),
}
CARDS = {
    "RTX 3090": ("2204", "NVIDIA GeForce RTX 3090", "GA102 [GeForce RTX 3090]", 24576),
    "RTX 4090": ("2684", "NVIDIA GeForce RTX 4090", "AD102 [GeForce RTX 4090]", 24564),
    "RTX 5090": ("2b85", "NVIDIA GeForce RTX 5090", "GB202 [GeForce RTX 5090]", 32607),
    "A100": ("20b5", "NVIDIA A100 80GB PCIe", "GA100 [A100 PCIe 80GB]", 81920),
    "GTX 1080": ("1b80", "NVIDIA GeForce GTX 1080", "GP104 [GeForce GTX 1080]", 8192),
    "T4": ("1eb8", "Tesla T4", "TU104GL [Tesla T4]", 15360),
}


@dataclass
class Rig:
    """What a healthy host is made from; `capture` gives its look."""

    system: str = "ubuntu-22.04"
    driver: str = "550.127.05"
    open: bool = False
    card: str = "RTX 4090"
    count: int = 2
    docker: str | None = "28.3.2"
    toolkit: str | None = "1.17.8"
    dkms: bool = True
    held: bool = True
    cluster: bool = False
    secure_boot: bool = False
    files: dict[str, str | None] = field(default_factory=dict)
    commands: dict[str, Any] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    nvml: dict[str, Any] | None = None

    def capture(self, name: str = "rig-01") -> Capture:
        files, commands = self._files(), self._commands()
        for path, text in self.files.items():
            files[path] = text
        for line, given in self.commands.items():
            commands[line] = given if isinstance(given, CommandOutput) else out(given)
        for key in self.drop:
            files.pop(key, None)
            commands.pop(key, None)
        nvml = self._nvml() if self.nvml is None else self.nvml
        return Capture(host=name, taken_at=TAKEN_AT, probe="0.1.0", files=files, commands=commands, nvml=nvml or None)

    @property
    def kernel(self) -> str:
        return SYSTEMS[self.system][2]

    @property
    def branch(self) -> str:
        return self.driver.split(".")[0]

    @property
    def debian(self) -> bool:
        return self.system.startswith("debian")

    @property
    def folder(self) -> str:
        return "/usr/lib/x86_64-linux-gnu" + ("/nvidia/current" if self.debian else "")

    @property
    def slots(self) -> list[str]:
        return [f"0000:{0x01 + 0x20 * number:02x}:00.0" for number in range(self.count)]

    def packages(self, version: str | None = None) -> dict[str, str]:
        """Names and versions of the driver's packages and of what stands around them."""
        version = version or self.driver
        if self.debian:
            revision = f"{version}-1~deb{self.system[-2:]}u1"
            open_ = "nvidia-open-kernel-dkms" if self.open else "nvidia-kernel-dkms"
            names = [open_, "nvidia-driver", "nvidia-smi", "libnvidia-ml1", "libcuda1", "nvidia-alternative"]
            more = {"nvidia-persistenced": "535.171.04-1~deb12u1", "nvidia-modprobe": "535.161.07-1~deb12u1"}
        else:
            revision = f"{version}-0ubuntu0.{self.system[-5:]}.1"
            flavour = "-open" if self.open else ""
            names = [
                f"nvidia-driver-{self.branch}{flavour}",
                f"libnvidia-compute-{self.branch}",
                f"nvidia-utils-{self.branch}",
                f"nvidia-compute-utils-{self.branch}",
                f"libnvidia-cfg1-{self.branch}",
                f"nvidia-kernel-common-{self.branch}",
                f"nvidia-dkms-{self.branch}{flavour}"
                if self.dkms
                else f"linux-modules-nvidia-{self.branch}{flavour}-{self.kernel}",
            ]
            more = {"nvidia-prime": "0.8.17.1", "nvidia-settings": "510.47.03-0ubuntu1"}
        if self.toolkit:
            more["nvidia-container-toolkit"] = f"{self.toolkit}-1"
        if self.docker:
            more["docker-ce"] = f"5:{self.docker}-1~{self.system}"
            more["containerd.io"] = "1.7.27-1"
        held = "h" if self.held else "i"
        rows = dict.fromkeys(names, f"{revision}\t{held}i ")
        rows |= {name: f"{number}\tii " for name, number in more.items()}
        rows |= {
            "bash": "5.2-1\tii ",
            "linux-base": "4.9\tii ",
            f"linux-image-{self.kernel}": "1\tii ",
            "old": "1\trc ",
        }
        return rows

    def dpkg(self, **changes: str) -> str:
        """The listing of packages, with some of them replaced: `{"nvidia-smi": "525.85.12-1\\tii "}`."""
        rows = {**self.packages(), **changes}
        return "".join(f"{name}\t{rest}\n" for name, rest in sorted(rows.items()) if rest)

    def _nvml(self) -> dict[str, Any]:
        _, name, _, memory = CARDS[self.card]
        return {
            "driver_version": self.driver,
            "nvml_version": f"12.{self.driver}",
            "cuda_driver_version": 12040,
            "devices": [
                {
                    "index": number,
                    "name": name,
                    "uuid": f"GPU-{number}",
                    "bus_id": f"0000{slot.upper()}",
                    "memory_total": memory << 20,
                    "memory_used": 4 << 20,
                    "temperature_c": 44,
                    "power_mw": 25000,
                    "power_limit_mw": 350000,
                    "compute_processes": 0,
                    "pcie_width": 16,
                    "persistence_mode": 1,
                    "pcie_width_max": 16,
                    "pcie_generation": 1,
                    "pcie_generation_max": 4,
                    "throttle_reasons": 1,
                    "bar1_total": 32 << 30,
                    "mig_mode": None,
                    "fan_percent": 30,
                    "remapped_rows": None,
                }
                for number, slot in enumerate(self.slots)
            ],
        }

    def smi(self, driver: str | None = None) -> str:
        version = driver or self.driver
        name = CARDS[self.card][1]
        rows = "".join(
            f"|   {number}  {name:<28}On  |   0000{slot.upper()} Off |                  N/A |\n"
            f"| 30%   44C    P8             25W /  350W |       4MiB /  24564MiB |      0%      Default |\n"
            for number, slot in enumerate(self.slots)
        )
        head = f"| NVIDIA-SMI {version}   Driver Version: {version}   CUDA Version: 12.4 |"
        return f"Tue Nov 24 03:07:00 2026\n+-----+\n{head}\n{rows}+-----+\n"

    def docker_info(self, **changes: Any) -> str:
        runtimes: dict[str, Any] = {"runc": {"path": "runc"}, "io.containerd.runc.v2": {"path": "runc"}}
        if self.toolkit:
            runtimes["nvidia"] = {"path": "nvidia-container-runtime"}
        info = {
            "ServerVersion": self.docker,
            "Runtimes": runtimes,
            "DefaultRuntime": "runc",
            "CgroupDriver": "systemd",
            "CgroupVersion": "2",
            "DiscoveredDevices": [],
            "ContainersRunning": 1,
            "DockerRootDir": "/var/lib/docker",
        }
        return json.dumps({**info, **changes}) + "\n"

    def units(self, **states: str) -> str:
        """`systemctl show`; states by unit name without `.service`, dashes as underscores: `docker="failed"`."""
        changed = {name.replace("_", "-"): state for name, state in states.items()}
        blocks = []
        for unit in DOCTOR.units:
            name = unit.partition(".")[0]
            there = {
                "docker": bool(self.docker),
                "containerd": bool(self.docker),
                "nvidia-persistenced": True,
                "ssh": True,
                "systemd-timesyncd": True,
                "kubelet": self.cluster,
                "apt-daily": True,
                "apt-daily-upgrade": True,
            }.get(name, False)
            state = changed.pop(name, None) or (
                "active" if there and unit != "apt-daily-upgrade.service" else "inactive"
            )
            load = "loaded" if there or state == "failed" else "not-found"
            enabled = "enabled" if there else ""
            blocks.append(f"Id={unit}\nLoadState={load}\nActiveState={state}\nSubState=x\nUnitFileState={enabled}\n")
        blocks += [
            f"Id={name}.service\nLoadState=loaded\nActiveState={state}\nSubState=x\nUnitFileState=enabled\n"
            for name, state in changed.items()
        ]
        return "\n".join(blocks)

    def _files(self) -> dict[str, str | None]:
        pretty, codename, kernel = SYSTEMS[self.system]
        system, _, number = self.system.partition("-")
        kind = "NVIDIA UNIX Open Kernel Module for x86_64" if self.open else "NVIDIA UNIX x86_64 Kernel Module"
        files: dict[str, str | None] = {
            "/etc/os-release": f'PRETTY_NAME="{pretty}"\nID={system}\nVERSION_ID="{number}"\n'
            f"VERSION_CODENAME={codename}\n",
            "/proc/sys/kernel/osrelease": f"{kernel}\n",
            "/proc/version": f"Linux version {kernel} (gcc-12)\n",
            "/proc/cmdline": f"BOOT_IMAGE=/boot/vmlinuz-{kernel} root=/dev/sda1 ro quiet\n",
            "/proc/modules": "nvidia_uvm 1540096 0 - Live 0x0\nnvidia_drm 77824 0 - Live 0x0\n"
            "nvidia_modeset 1314816 1 nvidia_drm, Live 0x0\nnvidia 56852480 2 nvidia_uvm,nvidia_modeset, Live 0x0\n",
            "/proc/driver/nvidia/version": f"NVRM version: {kind}  {self.driver}  Tue Oct  8 03:22:07 UTC 2024\n",
            "/sys/module/nvidia/version": f"{self.driver}\n",
            "/proc/meminfo": "MemTotal:       131072000 kB\nSwapTotal:       0 kB\n",
            "/boot/grub/grub.cfg": None,
            "/boot/grub/grubenv": None,
            "/run/provision/tunnel.json": None,
            "/var/lib/provision/guard.json": None,
            "/var/lib/provision/baseline.json": None,
            "/etc/apt/apt.conf.d/20auto-upgrades": 'APT::Periodic::Unattended-Upgrade "0";\n',
            "/etc/apt/apt.conf.d/50unattended-upgrades": "Unattended-Upgrade::Package-Blacklist {\n};\n",
            "/etc/docker/daemon.json": None,
            "/etc/containerd/config.toml": None,
            "/etc/nvidia-container-runtime/config.toml": None,
            "/var/log/apt/history.log": "\nStart-Date: 2026-10-01  10:00:00\nCommandline: apt-get install curl\n"
            "Install: curl:amd64 (8.1-1)\nEnd-Date: 2026-10-01  10:00:01\n",
            "/proc/sys/kernel/pid_max": "4194304\n",
            "/etc/modprobe.d/blacklist-nouveau.conf": "blacklist nouveau\noptions nouveau modeset=0\n",
            "/etc/modprobe.d/blacklist-framebuffer.conf": "blacklist nvidiafb\nblacklist rivafb\n",
            "/sys/kernel/iommu_groups/0/type": "DMA-FQ\n",
        }
        if self.docker and self.toolkit:
            files["/etc/docker/daemon.json"] = (
                '{\n    "runtimes": {\n        "nvidia": {\n            "args": [],\n'
                '            "path": "nvidia-container-runtime"\n        }\n    }\n}\n'
            )
            files["/etc/containerd/config.toml"] = (
                'disabled_plugins = ["cri"]\n' if not self.cluster else "version = 2\n"
            )
            files["/etc/nvidia-container-runtime/config.toml"] = (
                "disable-require = false\n\n[nvidia-container-cli]\nenvironment = []\n"
                'ldconfig = "@/sbin/ldconfig.real"\n'
                '#root = "/run/nvidia/driver"\n\n[nvidia-container-runtime]\nmode = "auto"\n'
            )
        if self.cluster:
            files["/etc/containerd/config.toml"] = (
                'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]\n'
            )
        for slot in self.slots:
            root = f"/sys/bus/pci/devices/{slot}"
            device = CARDS[self.card][0]
            files |= {
                f"{root}/vendor": "0x10de\n",
                f"{root}/device": f"0x{device}\n",
                f"{root}/class": "0x030000\n",
                f"{root}/subsystem_vendor": "0x1462\n",
                f"{root}/subsystem_device": "0x5102\n",
                f"{root}/current_link_width": "16\n",
                f"{root}/max_link_width": "16\n",
                f"{root}/current_link_speed": "2.5 GT/s PCIe\n",
                f"{root}/max_link_speed": "16.0 GT/s PCIe\n",
            }
        return files

    def _commands(self) -> dict[str, CommandOutput]:
        kernel, driver = self.kernel, self.driver
        dkms_name = ("nvidia-current" + ("-open" if self.open else "")) if self.debian else "nvidia"
        module = "nvidia-current" if self.debian else "nvidia"
        modules = f"/lib/modules/{kernel}/updates/dkms/{module}.ko" + (".zst" if "24.04" in self.system else "")
        none = CommandOutput(rc=2, stderr=NO_SUCH)
        flavour = "-open" if self.open else ""
        prebuilt = f"/lib/modules/{kernel}/kernel/nvidia-{self.branch}{flavour}/nvidia.ko\n"
        pci = "".join(f"/sys/bus/pci/devices/{slot}/vendor\n" for slot in self.slots)
        chip, device = CARDS[self.card][2], CARDS[self.card][0]
        lspci = "".join(
            f"{slot[5:]} VGA compatible controller [0300]: NVIDIA Corporation {chip} [10de:{device}] (rev a1)\n"
            f"\tSubsystem: Micro-Star International [1462:5102]\n"
            f"\tRegion 0: Memory at f8000000 (32-bit, non-prefetchable) [size=16M]\n"
            f"\tRegion 1: Memory at 6000000000 (64-bit, prefetchable) [size=32G]\n"
            f"\t\tLnkCap:\tPort #0, Speed 16GT/s, Width x16, ASPM L1\n"
            f"\t\tLnkSta:\tSpeed 2.5GT/s (downgraded), Width x16\n"
            for slot in self.slots
        )
        library = f"{self.folder}/libnvidia-ml.so.{driver}"
        commands = {
            UNITS_LINE: out(self.units()),
            DPKG: out(self.dpkg()),
            DF_LINE: out("File Avail\n" + "".join(f"{path} 181200\n" for path in DOCTOR.disks)),
            "uname -m": out("x86_64\n"),
            "ls -d /snap/bin/docker": none,
            KEYRINGS.line: out(""),
            INITRAMFS.line: out(""),
            BOOT_MODULES.line: out(""),
            CDI_GONE.line: out(""),
            IN_CONTAINERS.line: out(""),
            ALLOCATABLE.line: out(str(self.count))
            if self.cluster
            else CommandOutput(rc=127, stderr="sh: 1: kubectl: not found\n"),
            PROVIDER.line: CommandOutput(rc=1 if self.cluster else 127),
            "ls -d /proc/driver/nvidia/gpus/*": out(
                "".join(f"/proc/driver/nvidia/gpus/{slot}\n" for slot in self.slots)
            ),
            "date +%s.%N": out(f"{TAKEN_AT.timestamp() + 0.4:.9f}\n"),
            "nvidia-smi": out(self.smi()),
            "systemd-detect-virt": CommandOutput(rc=1, stdout="none\n"),
            "mokutil --sb-state": out(f"SecureBoot {'enabled' if self.secure_boot else 'disabled'}\n"),
            "mokutil --test-key /var/lib/dkms/mok.pub": CommandOutput(rc=1, stderr="Failed to open\n"),
            "timedatectl show": out("Timezone=Etc/UTC\nNTP=yes\nNTPSynchronized=yes\n"),
            "ls /boot": out(f"System.map-{kernel}\nconfig-{kernel}\ninitrd.img-{kernel}\nvmlinuz-{kernel}\n"),
            "ls -d /lib/modules/*/build/Makefile": out(f"/lib/modules/{kernel}/build/Makefile\n"),
            "ls -d /lib/modules/*/updates/dkms/nvidia*": out(modules + "\n") if self.dkms else none,
            "ls -d /lib/modules/*/kernel/nvidia-*/nvidia.ko*": none if self.dkms else out(prebuilt),
            "ls -d /lib/modules/*/kernel/drivers/video/nvidia.ko*": none,
            "readlink -f /var/lib/dkms/*/kernel-*": out(f"/var/lib/dkms/{dkms_name}/{driver}/{kernel}/x86_64\n")
            if self.dkms
            else CommandOutput(rc=1),
            "dkms status": out(f"{dkms_name}/{driver}, {kernel}, x86_64: installed\n" if self.dkms else ""),
            "modinfo -F version nvidia": CommandOutput(rc=1, stderr="modinfo: ERROR: Module nvidia not found.\n")
            if self.debian
            else out(f"{driver}\n"),
            "modinfo -F license nvidia": CommandOutput(rc=1, stderr="modinfo: ERROR: Module nvidia not found.\n")
            if self.debian
            else out("Dual MIT/GPL\n" if self.open else "NVIDIA\n"),
            "readlink -f /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1": out(library + "\n"),
            "readlink -f /usr/lib/x86_64-linux-gnu/libcuda.so.1": out(f"{self.folder}/libcuda.so.{driver}\n"),
            "readlink -f /usr/lib64/libnvidia-ml.so.1": out("/usr/lib64/libnvidia-ml.so.1\n"),
            "readlink -f /usr/lib/libnvidia-ml.so.1": out("/usr/lib/libnvidia-ml.so.1\n"),
            "ls -d /usr/lib/*/libcuda.so*": out(
                f"/usr/lib/x86_64-linux-gnu/libcuda.so.1\n/usr/lib/x86_64-linux-gnu/libcuda.so.{driver}\n"
            ),
            "ls -d /usr/lib/*/libnvidia-*.so*": out(
                f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1\n/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{driver}\n"
            ),
            "ls -d /usr/bin/nvidia-*": out("/usr/bin/nvidia-smi\n/usr/bin/nvidia-container-runtime\n"),
            "ls -d /usr/bin/nvidia-uninstall": none,
            "ls /lib/firmware/nvidia": out(f"{driver}\nad102\nga102\ntu102\n"),
            "ls /run/nvidia/driver": none,
            "ls -d /dev/nvidia*": out(
                "".join(f"/dev/nvidia{number}\n" for number in range(self.count))
                + "/dev/nvidia-modeset\n/dev/nvidia-uvm\n/dev/nvidia-uvm-tools\n/dev/nvidiactl\n"
            ),
            "ls -d /var/lib/dpkg/updates/*": none,
            "ls -d /etc/docker/daemon.json*": out("/etc/docker/daemon.json\n"),
            "ls -d /etc/cdi/*": none,
            "ls -d /var/run/cdi/*": none,
            "ls -d /etc/modprobe.d/*.conf": out(
                "/etc/modprobe.d/blacklist-framebuffer.conf\n/etc/modprobe.d/blacklist-nouveau.conf\n"
            ),
            "ls -d /lib/modprobe.d/*nvidia*": none,
            "ls -d /lib/modprobe.d/*nouveau*": none,
            "ls -d /sys/module/nouveau": none,
            "ls -d /sys/firmware/efi": none,
            "ls -d /sys/bus/pci/devices/*/vendor": out(pci),
            "lspci -nnvv -d 10de:": out(lspci),
            "lspci -vv -d ::0604": out(
                "00:01.0 PCI bridge: Intel Corporation\n\t\tLnkSta:\tSpeed 2.5GT/s, Width x16\n"
            ),
            "dmesg": out(
                f"[    6.1] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  {driver}\n[    9.9] eth0: link up\n"
            ),
            XIDS_LINE: CommandOutput(rc=1),
            ENGINES_LINE: out(
                'Nov 24 02:50:00 rig dockerd[900]: level=warning msg="cleaning up after shim disconnected"\n'
            ),
            APT_LINE: out("Nov 24 02:00:00 rig systemd[1]: Finished Daily apt download activities.\n"),
            "ip -o link": out(
                "1: lo: <LOOPBACK,UP> mtu 65536 qdisc noqueue\n2: eth0: <BROADCAST,UP> mtu 1500 qdisc mq\n"
                "3: wg0: <POINTOPOINT,NOARP,UP> mtu 1420 qdisc noqueue\n"
                "4: docker0: <BROADCAST,UP> mtu 1500 qdisc noqueue\n"
            ),
            "ps -eo stat,pid,ppid,comm": out(
                "STAT PID PPID COMMAND\nSs 1 0 systemd\nD 77 2 kworker/u8:1\nZ 90 80 sh\n"
            ),
            "iptables -S DOCKER-USER": out("-N DOCKER-USER\n-A DOCKER-USER -j RETURN\n"),
            "ufw status": CommandOutput(rc=127, stderr="No such file or directory: 'ufw'\n"),
            "podman --version": CommandOutput(rc=127, stderr="No such file or directory: 'podman'\n"),
            INITRAMFS_LINE: out("etc/modprobe.d/blacklist-nouveau.conf\n"),
            MAKE_LOG_LINE: out(
                "/var/lib/dkms/nvidia/550/build/make.log:3: echo >&2; echo ERROR: Kernel configuration\n"
            ),
            LOCK_LINE: CommandOutput(rc=1),
            MAPS_LINE: out(f"      2 {library}\n" if self.count else ""),
        }
        for slot in self.slots:
            commands[f"readlink -f /sys/bus/pci/devices/{slot}/driver"] = out("/sys/bus/pci/drivers/nvidia\n")
        if self.docker:
            commands[HANDED_OUT.line] = out(f"/node - {self.count}\n")
            commands["docker info --format '{{json .}}'"] = out(self.docker_info())
            commands["docker ps --format '{{.Names}} {{.Ports}}'"] = out("node 0.0.0.0:8080->8080/tcp\n")
        else:
            for line in (
                "docker info --format '{{json .}}'",
                "docker ps --format '{{.Names}} {{.Ports}}'",
                HANDED_OUT.line,
            ):
                commands[line] = CommandOutput(rc=127, stderr="No such file or directory: 'docker'\n")
        return commands


def out(text: str, rc: int = 0, stderr: str = "") -> CommandOutput:
    """What a command gave."""
    return CommandOutput(rc=rc, stdout=text, stderr=stderr)


def failed(stderr: str, rc: int = 1, stdout: str = "") -> CommandOutput:
    """What a command that failed gave."""
    return CommandOutput(rc=rc, stdout=stdout, stderr=stderr)
