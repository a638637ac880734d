"""Failures as they occur elsewhere: other systems, versions and wordings than those the mechanisms were written from.

Each is a whole healthy host with one thing broken the way it breaks in life, so that a wrong finding shows as well as
a missed one. The texts follow what kernels, apt, DKMS, Docker, containerd and NVIDIA's tools print.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from provisioner.probe.request import DPKG
from tests.doctor.hosts import (
    APT_LINE,
    DF_LINE,
    ENGINES_LINE,
    INITRAMFS_LINE,
    LOCK_LINE,
    MAKE_LOG_LINE,
    MAPS_LINE,
    NO_SUCH,
    UNITS_LINE,
    XIDS_LINE,
    Rig,
    failed,
    out,
)

NO_NVML = {"error": "NVML_ERROR_DRIVER_NOT_LOADED"}
MISMATCH = {"error": "NVML_ERROR_LIB_RM_VERSION_MISMATCH"}
NOT_REACHED = failed("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the "
                     "latest NVIDIA driver is installed and running.\n\n", rc=9)  # fmt: skip
UNLOADED = {"/sys/module/nvidia/version": None, "/proc/driver/nvidia/version": None, "/proc/modules": "ext4 1 0 - Live 0x0\n"}


@dataclass(frozen=True)
class Variant:
    """A broken host, and the mechanism that is to come first."""

    name: str
    first: str
    rig: Rig
    others: tuple[str, ...] = ()  # what may stand beside it


def upgraded(rig: Rig, new: str, *, built: bool = True, by: str = "apt-get upgrade -y") -> Rig:
    """The packages moved to `new` while the old module is loaded; `built`: DKMS has the new one ready."""
    name = "nvidia-current" if rig.debian else "nvidia"
    other = Rig(system=rig.system, driver=new, open=rig.open, dkms=rig.dkms)
    on_disk = new if built else rig.driver
    rig.commands |= {
        "readlink -f /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1": f"{rig.folder}/libnvidia-ml.so.{new}\n",
        "readlink -f /usr/lib/x86_64-linux-gnu/libcuda.so.1": f"{rig.folder}/libcuda.so.{new}\n",
        "readlink -f /var/lib/dkms/*/kernel-*": f"/var/lib/dkms/{name}/{on_disk}/{rig.kernel}/x86_64\n",
        "dkms status": f"{name}/{on_disk}, {rig.kernel}, x86_64: installed\n" + ("" if built else f"{name}/{new}: added\n"),
        "nvidia-smi": failed("", rc=18, stdout=f"Failed to initialize NVML: Driver/library version mismatch\nNVML library version: {new[:7]}\n"),
        DPKG: rig.dpkg(**other.packages()),
        "dmesg": f"[812.1] NVRM: API mismatch: the client 'nvidia-smi' (pid 4411)\n[812.1] NVRM: has the version {new}, but this kernel "
        f"module has\n[812.1] NVRM: the version {rig.driver}.  Please make sure that this\n",
        MAPS_LINE: f"      1 {rig.folder}/libcuda.so.{rig.driver} (deleted)\n",
        "ls /lib/firmware/nvidia": f"{rig.driver}\n{new}\n",
    }
    if not rig.debian:
        rig.commands["modinfo -F version nvidia"] = f"{on_disk}\n"
    rig.files["/var/log/apt/history.log"] = (
        f"\nStart-Date: 2026-11-23  06:12:09\nCommandline: {by}\n"
        f"Upgrade: libnvidia-compute-{rig.branch}:amd64 ({rig.driver}-0ubuntu0.22.04.1, {new}-0ubuntu0.22.04.1)\n"
        "End-Date: 2026-11-23  06:13:00\n"
    )
    rig.nvml = MISMATCH
    return rig


def unloaded(rig: Rig, **commands: object) -> Rig:
    """No module of NVIDIA's is in the kernel."""
    rig.files |= UNLOADED
    rig.commands |= {
        "nvidia-smi": NOT_REACHED,
        "dmesg": "[    9.9] eth0: link up\n",
        "ls -d /dev/nvidia*": failed(NO_SUCH, rc=2),
        MAPS_LINE: "",
        **{f"readlink -f /sys/bus/pci/devices/{slot}/driver": failed("") for slot in rig.slots},
        "lspci -nnvv -d 10de:": "",
        **commands,
    }
    rig.nvml = NO_NVML
    return rig


def not_built(rig: Rig, **commands: object) -> Rig:
    """Nothing of NVIDIA's lies on disk for the running kernel."""
    name = "nvidia-current" if rig.debian else "nvidia"
    none = failed(NO_SUCH, rc=2)
    return unloaded(
        rig,
        **{
            "ls -d /lib/modules/*/updates/dkms/nvidia*": none,
            "readlink -f /var/lib/dkms/*/kernel-*": failed(""),
            "dkms status": f"{name}/{rig.driver}: added\n",
            "modinfo -F version nvidia": failed("modinfo: ERROR: Module nvidia not found.\n"),
            "modinfo -F license nvidia": failed("modinfo: ERROR: Module nvidia not found.\n"),
            **commands,
        },
    )


def said(rig: Rig, line: str, *, rc: int = 125, stderr: str = "", stdout: str = "") -> Rig:
    rig.commands[line] = failed(stderr, rc=rc, stdout=stdout)
    return rig


def log(rig: Rig, text: str) -> Rig:
    """The kernel's log, after a start without trouble."""
    rig.commands["dmesg"] = f"[    6.1] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  {rig.driver}\n{text}"
    return rig


def devices(rig: Rig, **changes: object) -> Rig:
    """What NVML says of the first card."""
    answer = rig._nvml()
    answer["devices"][0] |= changes
    rig.nvml = answer
    return rig


def lost(rig: Rig, text: str) -> Rig:
    """The last card is gone from NVML and still in the bus's list."""
    answer = rig._nvml()
    answer["devices"][-1] = {"index": rig.count - 1, "error": "NVML_ERROR_GPU_IS_LOST"}
    rig.nvml = answer
    rig.commands["nvidia-smi"] = failed("", rc=255, stdout="Unable to determine the device handle for GPU1: 0000:21:00.0: Unknown Error\n")
    return log(rig, text)


def daemon(rig: Rig, text: str, **more: str) -> Rig:
    rig.files |= {"/etc/docker/daemon.json": text, **more}
    rig.commands["ls -d /etc/docker/daemon.json*"] = "".join(f"{path}\n" for path in ("/etc/docker/daemon.json", *more))
    return rig


def spec(rig: Rig, version: str, path: str = "/etc/cdi/nvidia.yaml") -> Rig:
    """A CDI spec that was written for another driver."""
    rig.files[path] = (
        "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: all\ncontainerEdits:\n  mounts:\n"
        f"  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{version}\n    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{version}\n"
    )
    rig.commands[f"ls -d {path.rpartition('/')[0]}/*"] = f"{path}\n"
    return rig


U20, U22, U24, D11, D12, D13 = ("ubuntu-20.04", "ubuntu-22.04", "ubuntu-24.04", "debian-11", "debian-12", "debian-13")

VARIANTS = [
    # Versions that differ.
    Variant("an operator upgraded Ubuntu 24.04 by hand", "driver-replaced-under-loaded-module",
            upgraded(Rig(system=U24, driver="580.95.05", open=True, held=False), "580.105.08")),
    Variant("a point release of Debian 12", "driver-replaced-under-loaded-module",
            upgraded(Rig(system=D12, driver="535.247.01"), "535.261.03", by="/usr/bin/unattended-upgrade")),
    Variant("only the third number moved, on Debian 11", "driver-replaced-under-loaded-module",
            upgraded(Rig(system=D11, driver="470.256.02", card="RTX 3090"), "470.256.03")),
    Variant("a downgrade", "driver-replaced-under-loaded-module",
            upgraded(Rig(system=U22, driver="570.195.03"), "570.172.08")),
    Variant("DKMS never built the new version", "module-on-disk-older-than-library",
            upgraded(Rig(system=U22, driver="570.133.20"), "570.195.03", built=False)),
    Variant("the same on Debian 13", "module-on-disk-older-than-library",
            upgraded(Rig(system=D13, driver="550.163.01"), "550.183.02", built=False)),
    Variant("a .run file over packages", "driver-from-two-origins",
            (lambda rig: (rig.commands.update({"ls -d /usr/bin/nvidia-uninstall": "/usr/bin/nvidia-uninstall\n"}), rig)[1])(
                upgraded(Rig(system=U20, driver="535.183.01"), "535.216.03"))),
    Variant("half the packages moved and the rest is broken", "driver-packages-of-several-versions",
            (lambda rig: (rig.commands.update({DPKG: rig.dpkg(**{"libnvidia-compute-545": "545.29.06-0ubuntu0.22.04.2\tii ",
                "nvidia-utils-545": "545.29.06-0ubuntu0.22.04.2\tiU ", "nvidia-dkms-545": "545.23.08-0ubuntu0.22.04.1\tiF "})}), rig)[1])(
                upgraded(Rig(system=U22, driver="545.23.08"), "545.29.06", built=False)), ("packages-half-configured",)),
    Variant("a transitional package crossed to the next branch", "package-name-is-no-pin",
            (lambda rig: (rig.commands.update({DPKG: rig.dpkg(**{"nvidia-driver-525": "535.183.01-0ubuntu0.22.04.1\tii ",
                "libnvidia-compute-535": "535.183.01-0ubuntu0.22.04.1\tii "})}), rig)[1])(
                upgraded(Rig(system=U22, driver="525.147.05"), "535.183.01"))),
    Variant("the fabric manager is one patch ahead", "fabric-manager-of-another-version",
            Rig(system=U22, driver="535.183.01", card="A100", commands={
                DPKG: Rig(system=U22, driver="535.183.01").dpkg(**{"nvidia-fabricmanager-535": "535.183.06-0ubuntu0.22.04.1\tii "}),
                UNITS_LINE: Rig().units(nvidia_fabricmanager="failed"),
                ENGINES_LINE: "Nov 24 02:50:00 n nv-fabricmanager[88]: fabric manager NVIDIA GPU driver interface version 535.183.06 "
                "don't match with driver version 535.183.01. Please update with matching NVIDIA driver package.\n"})),
    Variant("the kernel that boots next has no module", "next-kernel-without-module",
            Rig(system=D12, driver="535.261.03", commands={"ls /boot": "initrd.img-6.1.0-56-amd64\nvmlinuz-6.1.0-56-amd64\n"
                "initrd.img-6.1.0-58-amd64\nvmlinuz-6.1.0-58-amd64\n"})),
    Variant("the initramfs kept the old driver", "initramfs-holds-another-driver",
            Rig(system=U24, driver="580.105.08", open=True, commands={INITRAMFS_LINE:
                "usr/lib/firmware/nvidia/580.95.05/gsp_ga10x.bin\nusr/lib/modules/6.14.0-37-generic/updates/dkms/nvidia.ko.zst\n"})),
    Variant("a CDI spec of the driver before, files gone", "cdi-spec-names-absent-files", spec(Rig(system=U24), "550.90.07")),
    Variant("a CDI spec in /var/run of the driver before", "cdi-spec-names-absent-files",
            spec(Rig(system=D12, driver="535.261.03"), "535.247.01", "/var/run/cdi/nvidia.yaml")),
    Variant("firmware of the loaded version is gone", "gsp-firmware-missing",
            (lambda rig: (rig.commands.update({"ls /lib/firmware/nvidia": "580.105.08\nga102\n"}), rig)[1])(
                upgraded(Rig(system=U24, driver="580.95.05", open=True), "580.105.08"))),
    # Modules that do not load.
    Variant("Debian 13 without headers, DKMS 3", "kernel-headers-missing",
            not_built(Rig(system=D13, driver="550.163.01"), **{
                "ls -d /lib/modules/*/build/Makefile": failed(NO_SUCH, rc=2),
                APT_LINE: "Nov 24 02:00:00 r dpkg[9]: Error! Your kernel headers for kernel 6.12.118+deb13-amd64 cannot be found at "
                "/lib/modules/6.12.118+deb13-amd64/build or /lib/modules/6.12.118+deb13-amd64/source.\n"})),
    Variant("Ubuntu's hwe kernel without headers", "kernel-headers-missing",
            not_built(Rig(system=U22, driver="535.183.01"), **{"ls -d /lib/modules/*/build/Makefile": "/lib/modules/5.15.0-100-generic/build/Makefile\n"})),
    Variant("a 6.17 kernel broke the build", "dkms-build-fails",
            not_built(Rig(system=U24, driver="550.127.05"), **{MAKE_LOG_LINE:
                "/var/lib/dkms/nvidia/550.127.05/build/make.log:90:nvidia-drm-fb.c:90:10: error: implicit declaration of function 'drm_helper_mode_fill_fb_struct'\n"
                "/var/lib/dkms/nvidia/550.127.05/build/make.log:99:make[2]: *** [scripts/Makefile.build:287: nvidia-drm-fb.o] Error 1\n"})),
    Variant("apt shows DKMS failing, in the words of DKMS 3.1", "dkms-build-fails",
            said(not_built(Rig(system=D13, driver="535.261.03")), "apt-get install -y linux-image-amd64", rc=100,
                 stdout="Autoinstall of module nvidia-current/535.261.03 for kernel 6.16.3+deb13-amd64 (x86_64)\nBuilding module(s).....(bad exit status: 2)\n",
                 stderr="Error! Bad return status for module build on kernel: 6.16.3+deb13-amd64 (x86_64)\nConsult /var/lib/dkms/nvidia-current/535.261.03/build/make.log for more information.\n")),
    Variant("the compiler is too old", "dkms-compiler-differs",
            not_built(Rig(system=U22, driver="535.183.01"), **{MAKE_LOG_LINE:
                "/var/lib/dkms/nvidia/535.183.01/build/make.log:30:gcc: error: unrecognized command-line option '-fmin-function-alignment=16'\n"})),
    Variant("Ubuntu's signed modules lag the kernel", "prebuilt-module-missing-for-kernel",
            not_built(Rig(system=U22, driver="535.183.01", dkms=False), **{
                "dkms status": "", "ls -d /lib/modules/*/kernel/nvidia-*/nvidia.ko*": failed(NO_SUCH, rc=2),
                DPKG: Rig(system=U22, driver="535.183.01", dkms=False).dpkg(**{"linux-modules-nvidia-535-6.8.0-60-generic": "",
                    "linux-modules-nvidia-535-6.8.0-58-generic": "6.8.0-58.60\tii "})})),
    Variant("Secure Boot, in the words of lockdown", "secure-boot-refuses-module",
            unloaded(Rig(system=D12, driver="535.261.03", secure_boot=True),
                     dmesg="[   12.4] Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7\n")),
    Variant("Secure Boot, the key waits to be enrolled", "secure-boot-refuses-module",
            unloaded(Rig(system=U24, driver="580.95.05", open=True, secure_boot=True), **{
                "mokutil --test-key /var/lib/shim-signed/mok/MOK.der": "/var/lib/shim-signed/mok/MOK.der is not enrolled\n",
                "modprobe nvidia": failed("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service\n")})),
    Variant("nouveau on Debian 11, in the old words", "nouveau-holds-the-cards",
            (lambda rig: (rig.files.update({"/proc/modules": "nouveau 2306048 4 - Live 0x0\nttm 1 1 nouveau\n"}),
                rig.commands.update({f"readlink -f /sys/bus/pci/devices/{slot}/driver": "/sys/bus/pci/drivers/nouveau\n" for slot in rig.slots}), rig)[2])(
                unloaded(Rig(system=D11, driver="470.256.02", card="RTX 3090"),
                         dmesg="[  5.1] NVRM: The NVIDIA probe routine was not called for 2 device(s).\n[  5.1] NVRM: This can occur when a driver such as:\n[  5.1] NVRM: nouveau, rivafb, nvidiafb or rivatv\n"))),
    Variant("a Pascal card met branch 590", "branch-dropped-the-card",
            unloaded(Rig(system=U22, driver="590.48.01", card="GTX 1080"),
                     dmesg="[ 6.6] NVRM: The NVIDIA GeForce GTX 1080 GPU installed in this system is\n[ 6.6] NVRM:  supported through the NVIDIA 580.xx Legacy drivers. Please\n"
                     "[ 6.6] NVRM:  information.  The 590.48.01 NVIDIA driver will ignore\n[ 6.6] NVRM: No NVIDIA GPU found.\n")),
    Variant("the same, and the log has rotated away", "branch-dropped-the-card",
            unloaded(Rig(system=U22, driver="595.71.05", card="GTX 1080", commands={}), dmesg="[ 99.9] eth0: link up\n")),
    Variant("Blackwell with proprietary modules, no log", "card-needs-open-modules",
            Rig(system=U24, driver="580.95.05", card="RTX 5090", commands={"nvidia-smi": failed("", rc=6, stdout="No devices were found\n")},
                nvml={"driver_version": "580.95.05", "devices": []})),
    Variant("open modules and a Pascal card", "open-modules-on-an-old-card",
            Rig(system=U24, driver="580.95.05", card="GTX 1080", open=True, commands={"nvidia-smi": failed("", rc=6, stdout="No devices were found\n")},
                nvml={"driver_version": "580.95.05", "devices": []})),
    Variant("a file of optimus-manager", "modprobe-keeps-nvidia-out",
            (lambda rig: (rig.files.update({"/etc/modprobe.d/optimus.conf": "blacklist nouveau\nblacklist nvidia\ninstall nvidia /usr/bin/false\n"}),
                rig.commands.update({"ls -d /etc/modprobe.d/*.conf": "/etc/modprobe.d/optimus.conf\n"}), rig)[2])(unloaded(Rig(system=U22)))),
    Variant("a blacklist on the kernel's command line", "modprobe-keeps-nvidia-out",
            (lambda rig: (rig.files.update({"/proc/cmdline": "root=/dev/sda1 ro module_blacklist=nvidia,nvidia_drm\n"}), rig)[1])(unloaded(Rig(system=D12, driver="535.261.03")))),
    Variant("a module of the kernel before", "module-built-for-another-kernel",
            unloaded(Rig(system=U22), dmesg="[ 5.5] nvidia: version magic '6.8.0-58-generic SMP preempt mod_unload ' should be '6.8.0-60-generic SMP preempt mod_unload '\n")),
    Variant("one of two cards is passed into a machine", "cards-given-to-virtual-machines",
            Rig(system=U22, commands={"readlink -f /sys/bus/pci/devices/0000:21:00.0/driver": "/sys/bus/pci/drivers/vfio-pci\n"},
                nvml={"driver_version": "550.127.05", "devices": [Rig()._nvml()["devices"][0]]})),
    # Packages.
    Variant("Docker's key has expired", "apt-key-missing",
            said(Rig(system=D12, driver="535.261.03"), "apt-get update", rc=100, stderr="W: GPG error: https://download.docker.com/linux/debian bookworm InRelease: "
                 "The following signatures were invalid: EXPKEYSIG 7EA0A9C3F273FCD8 Docker Release (CE deb) <docker@docker.com>\nE: The repository 'https://download.docker.com/linux/debian bookworm InRelease' is not signed.\n")),
    Variant("sqv misses a key", "apt-key-missing",
            said(Rig(system=D13, driver="550.163.01"), "apt update", rc=100, stdout="Err:4 https://nvidia.github.io/libnvidia-container/stable/deb/amd64 InRelease\n  Sub-process /usr/bin/sqv returned an "
                 "error code (1), error message is: Missing key C95B321B61E88C1809C4F759DDCAE044F796ECB0, which is needed to verify signature.\n")),
    Variant("apt waits in the words of Debian 12", "package-database-locked",
            said(Rig(system=D12, driver="535.261.03"), "apt-get install -y nvidia-driver", rc=100, stdout="Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 811 (unattended-upgr)...\n")),
    Variant("dpkg itself finds the lock", "package-database-locked",
            said(Rig(system=D12, driver="535.261.03"), "dpkg -i x.deb", rc=2, stderr="dpkg: error: dpkg frontend lock was locked by another process with pid 4242\nNote: removing the lock file is always wrong\n")),
    Variant("the kernel knows who holds the lock", "package-database-locked",
            Rig(system=U24, driver="570.195.03", open=True, commands={LOCK_LINE: "3: POSIX  ADVISORY  WRITE 811 08:01:393221 0 EOF\n"})),
    Variant("dpkg was killed in the middle", "dpkg-interrupted",
            Rig(system=D12, driver="535.261.03", commands={"ls -d /var/lib/dpkg/updates/*": "/var/lib/dpkg/updates/0001\n"})),
    Variant("a held branch stands in the way", "upgrade-blocked-by-holds",
            said(Rig(system=U24, driver="570.195.03", open=True), "apt-get -s install nvidia-driver-580-open", rc=100,
                 stdout="Some packages could not be installed.\nThe following packages have unmet dependencies:\n nvidia-driver-580-open : Depends: nvidia-dkms-580-open (= 580.95.05-0ubuntu0.24.04.2)\n",
                 stderr="E: Unable to correct problems, you have held broken packages.\n")),
    Variant("/boot is full in the words of initramfs-tools 0.142", "boot-full",
            said(Rig(system=D12, driver="535.261.03", commands={DF_LINE: "File Avail\n/ 90000\n/boot 12\n/usr 90000\n/var 90000\n/var/lib/docker 90000\n/tmp 900\n/var/lib/containerd 90000\n",
                DPKG: Rig(system=D12, driver="535.261.03").dpkg(**{"linux-image-6.1.0-58-amd64": "6.1.140-1\tiF ", "initramfs-tools": "0.142\tiF "}),
                "ls /boot": "initrd.img-6.1.0-56-amd64\nvmlinuz-6.1.0-56-amd64\nvmlinuz-6.1.0-58-amd64\n"}),
                "apt-get dist-upgrade -y", rc=100, stderr="cpio: write error: No space left on device\nupdate-initramfs: failed for /boot/initrd.img-6.1.0-58-amd64 with 1.\n"),
            ("next-kernel-without-module",)),
    Variant("autoremove would take the network's modules", "purge-would-take-the-kernel",
            said(Rig(system=U22), "apt-get -s autoremove --purge", rc=0, stdout="Purg linux-modules-extra-6.8.0-60-generic [6.8.0-60.63]\nPurg libnvidia-decode-550 [550.127.05]\n")),
    Variant("Ubuntu's libraries beside NVIDIA's module package", "driver-packages-of-two-origins",
            Rig(system=U22, commands={DPKG: Rig(system=U22).dpkg(**{"nvidia-dkms-550": "550.127.05-0ubuntu1\tii "})})),
    Variant("unattended upgrades and no hold", "driver-not-held",
            Rig(system=U22, held=False, files={"/etc/apt/apt.conf.d/20auto-upgrades": 'APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n'})),
    # Containers.
    Variant("Docker 29 finds no vendor", "engine-has-no-nvidia-runtime",
            daemon(said(Rig(system=D13, driver="550.163.01", docker="29.4.0", toolkit=None), "docker run --rm --gpus all debian true",
                 stderr="docker: Error response from daemon: failed to discover GPU vendor from CDI: no known GPU vendor found\n\nRun 'docker run --help' for more information\n"), "{}\n")),
    Variant("compose on Docker 24", "engine-has-no-nvidia-runtime",
            daemon(said(Rig(system=U20, driver="535.183.01", docker="24.0.9", toolkit=None), "docker compose up",
                 stderr='Error response from daemon: could not select device driver "nvidia" with capabilities: [[gpu]]\n'), "{}\n")),
    Variant("daemon.json was written and Docker not restarted", "daemon-json-not-applied",
            Rig(system=U22, commands={"docker info --format '{{json .}}'": Rig().docker_info(Runtimes={"runc": {"path": "runc"}})})),
    Variant("a comma too many in daemon.json", "daemon-json-not-json", daemon(Rig(system=U22), '{\n  "runtimes": {"nvidia": {"path": "nvidia-container-runtime"},},\n}\n')),
    Variant("the toolkit was removed, daemon.json still names it", "runtime-program-missing",
            Rig(system=U22, commands={"ls -d /usr/bin/nvidia-*": "/usr/bin/nvidia-smi\n", DPKG: Rig().dpkg(**{"nvidia-container-toolkit": ""})})),
    Variant("a client's installer replaced daemon.json", "daemon-json-overwritten",
            daemon(Rig(system=U22), '{"exec-opts": ["native.cgroupdriver=cgroupfs"], "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}',
                   **{"/etc/docker/daemon.json.dpkg-old": '{"data-root": "/mnt/docker", "default-runtime": "nvidia", "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}'})),
    Variant("containers lost their cards after daemon-reload", "daemon-reload-took-cards-away",
            said(Rig(system=U22), "docker exec train python -c 'import torch'", rc=1, stderr="UserWarning: Can't initialize NVML\nFailed to initialize NVML: Unknown Error\n")),
    Variant("an image of CUDA 13 on branch 550", "image-wants-newer-cuda",
            said(Rig(system=U22), "docker run --rm --gpus all vllm/vllm-openai:latest", stderr="docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime create failed: "
                 "runc create failed: unable to start container process: error during container init: error running prestart hook #0: exit status 1, stdout: , stderr: Auto-detected mode as 'legacy'\nnvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update your driver to a newer version, or use an earlier cuda container: unknown\n")),
    Variant("config.toml of an old driver container", "toolkit-root-is-empty",
            Rig(system=U22, files={"/etc/nvidia-container-runtime/config.toml": '[nvidia-container-cli]\nroot = "/run/nvidia/driver"\nldconfig = "@/sbin/ldconfig.real"\n'})),
    Variant("Fedora's ldconfig on Ubuntu is no fault, a folder is", "toolkit-ldconfig-broken",
            Rig(system=U22, files={"/etc/nvidia-container-runtime/config.toml": '[nvidia-container-cli]\nldconfig = "@/usr/local/lib"\n'})),
    Variant("the module was swapped under Docker", "driver-swapped-under-docker",
            said(Rig(system=D12, driver="535.261.03"), "docker start worker", rc=1, stderr="Error response from daemon: failed to create task: nvidia-container-cli: mount error: stat failed: /var/lib/docker/overlay2/5f/merged/proc/driver/nvidia/version: no such file or directory: unknown\n")),
    Variant("an old compose plugin against Docker 29.3", "docker-refuses-old-clients",
            Rig(system=U24, driver="570.195.03", open=True, docker="29.3.1", commands={ENGINES_LINE: "Nov 24 02:51:00 r portainer[12]: Error response from daemon: client version 1.38 is too old. Minimum supported API version is 1.40, please upgrade your client to a newer version\n"})),
    Variant("toolkit 1.18.0 on Debian's layout", "toolkit-default-mode-changed", Rig(system=D13, driver="550.163.01", toolkit="1.18.0")),
    Variant("podman 4.3 and a spec of CDI 0.7", "cdi-spec-too-new-for-runtime",
            (lambda rig: (rig.files.update({"/etc/cdi/nvidia.yaml": "---\ncdiVersion: 0.7.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  mounts:\n  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.535.261.03\n"}),
                rig.commands.update({DPKG: rig.dpkg(podman="4.3.1+ds1-8\tii "), "podman --version": "podman version 4.3.1\n", "ls -d /etc/cdi/*": "/etc/cdi/nvidia.yaml\n"}), rig)[2])(Rig(system=D12, driver="535.261.03"))),
    Variant("nvidia-cdi-refresh failed at boot", "cdi-refresh-failed",
            Rig(system=U24, driver="570.195.03", open=True, toolkit="1.18.1", commands={UNITS_LINE: Rig().units(nvidia_cdi_refresh="failed")})),
    Variant("CUDA 803 on the host", "cuda-refuses-driver",
            said(Rig(system=U22), "./bandwidthTest", rc=1, stdout="cudaGetDeviceProperties returned 803\n-> system has unsupported display driver / cuda driver combination\n")),
    Variant("forward compatibility on a GeForce", "stale-cuda-compat",
            said(said(Rig(system=U22), "docker run --rm --gpus all app:2 python check.py", rc=1, stderr="RuntimeError: CUDA error 804: forward compatibility was attempted on non supported HW\n"),
                 "docker run --rm --gpus all app:2 ldconfig -p", rc=0, stdout="\tlibcuda.so.1 (libc6,x86-64) => /usr/local/cuda-13.0/compat/libcuda.so.1\n")),
    Variant("a client built for a later CUDA", "driver-too-old-for-cuda",
            said(Rig(system=U22, driver="470.256.02", card="RTX 3090"), "./worker --check", rc=1, stderr="CUDA call failed: cudaErrorInsufficientDriver (35): CUDA driver version is insufficient for CUDA runtime version\n")),
    Variant("containerd was written anew by kubeadm", "containerd-has-no-nvidia-runtime",
            Rig(system=U22, docker=None, cluster=True, files={"/etc/containerd/config.toml": 'version = 3\n[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]\n'},
                commands={ENGINES_LINE: 'Nov 24 02:50:00 n kubelet[1311]: E1124 "Error syncing pod" err="rpc error: code = Unknown desc = unable to get OCI runtime for sandbox \\"a5b1\\": no runtime for \\"nvidia\\" is configured"\n'})),
    Variant("Docker's containerd on a k3s node", "containerd-cri-disabled",
            Rig(system=U22, docker=None, cluster=True, files={"/etc/containerd/config.toml": '#   Copyright\ndisabled_plugins = ["cri"]\n'})),
    Variant("nvidia-uvm was not loaded at boot", "device-nodes-missing",
            Rig(system=D12, driver="535.261.03", commands={"ls -d /dev/nvidia*": "/dev/nvidia0\n/dev/nvidia1\n/dev/nvidiactl\n"})),
    Variant("the persistence daemon lost the race", "persistence-daemon-failed",
            Rig(system=U24, driver="570.195.03", open=True, commands={UNITS_LINE: Rig().units(nvidia_persistenced="failed")})),
    # Cards.
    Variant("a card is gone, and a reboot is not enough", "card-fell-off-the-bus",
            lost(Rig(system=U22, count=4), "[9123.4] NVRM: Xid (PCI:0000:61:00): 79, pid=2211, name=python3, GPU has fallen off the bus.\n[9123.4] NVRM: GPU 0000:61:00.0: GPU has fallen off the bus.\n")),
    Variant("the log has rotated, NVML still knows", "card-fell-off-the-bus", lost(Rig(system=D12, driver="535.261.03"), "")),
    Variant("lanes were lost", "link-narrower-than-it-can-be", devices(Rig(system=U22, files={"/sys/bus/pci/devices/0000:01:00.0/current_link_width": "4\n"}), pcie_width=4)),
    Variant("GSP's heartbeat stopped, and Xid 109 and 8 followed", "gsp-crashed",
            log(Rig(system=U24, driver="590.48.01", open=True, card="RTX 5090"), "[77.0] NVRM: _kgspRpcRecvPoll: GSP RM heartbeat timed out\n[77.1] NVRM: Xid (PCI:0000:01:00): 8, pid=7, name=x, Channel 00000012\n"
                "[77.2] NVRM: Xid (PCI:0000:01:00): 109, pid=7, name=x, Ch 00000012, errorString CTX SWITCH TIMEOUT\n[77.3] NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)\n")),
    Variant("an RPC of GSP timed out", "gsp-crashed",
            log(Rig(system=U22, card="A100"), "[77.0] NVRM: Xid (PCI:0000:01:00): 119, pid=8, name=nvidia-smi, Timeout after 45s of waiting for RPC response from GPU0 GSP! Expected function 4097 (GSP_INIT_DONE) (0x0 0x0).\n")),
    Variant("a double bit error, and channels that followed", "memory-error",
            log(Rig(system=U22, card="A100"), "[1.0] NVRM: Xid (PCI:0000:21:00): 48, pid=1, name=p, An uncorrectable double bit error (DBE) has been detected on GPU in the framebuffer at partition 5, subpartition 0.\n"
                "[1.1] NVRM: Xid (PCI:0000:21:00): 63, pid=1, name=p, Row Remapper: New row (0x9a) marked for remapping, reset gpu to activate.\n[1.2] NVRM: Xid (PCI:0000:21:00): 45, pid=1, name=p, Ch 00000010\n")),
    Variant("rows wait for a reset, says NVML alone", "row-remap-pending",
            devices(Rig(system=U22, card="A100"), remapped_rows={"correctable": 0, "uncorrectable": 2, "pending": True, "failed": False})),
    Variant("no spare rows are left", "row-remap-failed",
            devices(Rig(system=U22, card="A100"), remapped_rows={"correctable": 0, "uncorrectable": 9, "pending": True, "failed": True})),
    Variant("a power brake, says NVML alone", "clocks-held-down-by-hardware", devices(Rig(system=U22, card="A100"), throttle_reasons=0x88)),
    Variant("heat, says NVML alone", "clocks-held-down-by-heat", devices(Rig(system=U22), throttle_reasons=0x20, temperature_c=87)),
    Variant("a tenant's page fault", "application-xids", log(Rig(system=U22), "[9.9] NVRM: Xid (PCI:0000:01:00): 31, pid=9, name=python3, channel 0x00000002, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_3 faulted @ 0x7f00_00000000.\n")),
    Variant("the journal alone knows of an older NVLink error", "nvlink-errors",
            Rig(system=U22, card="A100", commands={XIDS_LINE: "2026-11-20T10:00:00+0000 n kernel: NVRM: Xid (PCI:0000:01:00): 74, pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link 2(0x10000, 0x0, 0x0)\n"})),
    Variant("a power plug is loose", "power-cable-missing",
            Rig(system=U22, commands={"dmesg": "[8.8] NVRM: GPU 0000:21:00.0: GPU does not have the necessary power cables connected.\n[8.9] NVRM: GPU 0000:21:00.0: RmInitAdapter failed! (0x24:0x1c:1482)\n"},
                nvml={"driver_version": "550.127.05", "devices": [Rig()._nvml()["devices"][0]]})),
    Variant("infoROM, exit 14, another card", "inforom-corrupted", Rig(system=U22, card="T4", commands={"nvidia-smi": out(Rig(card="T4").smi() + "WARNING: infoROM is corrupted at gpu 0000:21:00.0\n", rc=14)})),
    Variant("nvidia-smi never returned", "gpu-call-hangs",
            Rig(system=U22, commands={"nvidia-smi": failed("", rc=124), "ps -eo stat,pid,ppid,comm": "STAT PID PPID COMMAND\nSs 1 0 systemd\nDl 900 1 nvidia-smi\n"}, nvml={"error": "timed-out"})),
    Variant("it hangs since the upgrade", "driver-replaced-under-work-hangs",
            (lambda rig: (rig.commands.update({"nvidia-smi": failed("", rc=124)}), setattr(rig, "nvml", {"error": "timed-out"}), rig)[2])(upgraded(Rig(system=U22), "550.163.01"))),
    Variant("256 MB for a 5090", "memory-window-too-small-for-card",
            Rig(system=U24, driver="580.95.05", open=True, card="RTX 5090", count=1, commands={
                "dmesg": "[9.1] NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x22:0x56:897)\n[9.1] NVRM: GPU 0000:01:00.0: rm_init_adapter failed, device minor number 0\n",
                "nvidia-smi": failed("", rc=6, stdout="No devices were found\n"),
                "lspci -nnvv -d 10de:": "01:00.0 VGA compatible controller [0300]: NVIDIA Corporation GB202 [10de:2b85] (rev a1)\n\tRegion 1: Memory at 4000000000 (64-bit, prefetchable) [size=256M]\n"},
                nvml={"driver_version": "580.95.05", "devices": []})),
    Variant("one window is smaller than the others", "memory-windows-differ", devices(Rig(system=U22, commands={"lspci -nnvv -d 10de:": Rig().capture().commands["lspci -nnvv -d 10de:"].stdout.replace("size=32G", "size=256M", 1)}), bar1_total=256 << 20)),
    Variant("ACS on an EPYC board", "peer-copies-go-astray",
            Rig(system=U22, commands={"lspci -vv -d ::0604": "40:01.1 PCI bridge: AMD\n\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-\n"})),
    # Machine, network, clients.
    Variant("docker pulls hang behind CGNAT", "tunnel-smaller-than-bridge",
            said(Rig(system=D12, driver="535.261.03"), "docker pull nvcr.io/nvidia/pytorch:25.01-py3", rc=1, stderr='Error response from daemon: Get "https://nvcr.io/v2/": net/http: TLS handshake timeout\n')),
    Variant("ufw and a published port", "docker-ports-bypass-ufw", Rig(system=U22, commands={"ufw status": "Status: active\n\nTo Action From\n22/tcp ALLOW Anywhere\n"})),
    Variant("the disk of images is full", "disk-nearly-full",
            Rig(system=U22, commands={DF_LINE: "File Avail\n/ 700\n/boot 700\n/usr 700\n/var 700\n/var/lib/docker 700\n/tmp 9000\n/var/lib/containerd 700\n"})),
    Variant("runc in Proxmox's LXC", "nested-host-refuses-runc",
            said(Rig(system=D12, driver="535.261.03", commands={"systemd-detect-virt": "lxc\n"}), "docker run --rm alpine true",
                 stderr="OCI runtime create failed: runc create failed: unable to start container process: error during container init: open sysctl net.ipv4.ip_unprivileged_port_start file: reopen fd 8: permission denied: unknown\n")),
    Variant("the clock is two minutes behind", "clock-is-off", Rig(system=D12, driver="535.261.03", commands={"date +%s.%N": f"{1795489620 - 127:.9f}\n"})),
    Variant("thousands of zombies in ps", "zombies-fill-the-process-table",
            Rig(system=U22, commands={"ps -eo stat,pid,ppid,comm": "STAT PID PPID COMMAND\n" + "Z 9 8 sh <defunct>\n" * 4000})),
    Variant("a network does not know the driver", "driver-not-on-the-networks-list",
            said(Rig(system=U22, driver="580.167.08"), "docker logs executor", rc=0, stdout='{"event": "validate", "check": "gpu.validate.nvml_digest", "reason": "NVML_DRIVER_UNKNOWN"}\n')),
    Variant("eight cards became seven", "lost-card-clears-verification",
            said(lost(Rig(system=U22, count=8), "[9.4] NVRM: Xid (PCI:0000:e1:00): 79, pid=1, name=x, GPU has fallen off the bus.\n"), "docker logs executor", rc=0, stdout="Machine spec is changed: RTX 4090:8 -> RTX 4090:7\n")),
    Variant("the network blames the runtime", "verdict-hides-version-mismatch",
            said(upgraded(Rig(system=U22), "550.163.01"), "docker logs miner", rc=0, stdout='{"reason": "DOCKER_RUNTIME_MISSING"}\n'), ),
    Variant("a launcher finds no GPU on a host without driver", "client-finds-no-gpu",
            said(Rig(system=U22, commands={"nvidia-smi": failed("sh: 1: nvidia-smi: not found\n", rc=127)}), "./launch --gpu", rc=1, stdout="No NVIDIA GPU detected on this system\n")),
    Variant("Docker failed", "units-failed", Rig(system=U22, commands={UNITS_LINE: Rig().units(docker="failed")})),
]  # fmt: skip


def names() -> list[str]:
    return [variant.name for variant in VARIANTS]


def as_json(value: object) -> str:
    return json.dumps(value)
