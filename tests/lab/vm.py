"""Virtual machines of Debian packages with GRUB and kernels of their own, run by QEMU; no loop device is needed.

The disk is put together from parts: GRUB's boot sector and core, one entry of a partition table, and a file system that
mke2fs fills from a folder. The processor is emulated: nested KVM was seen to take the machine and then stand still.
A machine that plays a story alone has no network; one that is a host stands on a lab's bridge, beside its containers.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from provisioner.adapters.lab import access, image
from provisioner.facts.listing import natural

TOOLS = ("mmdebstrap", "mke2fs", "qemu-system-x86_64")
PACKAGES = ("systemd-sysv", "udev", "initramfs-tools", "python3", "grub2-common", "grub-pc-bin")
SUITE = "bookworm"
SECTOR = 512
FIRST = 2048  # sectors before the file system: room for GRUB's core
SIZE_MIB = 1536
UUID = "6c1a3ad4-5f1e-4d2b-9d0a-1b2c3d4e5f60"
MODULES = "biosdisk part_msdos ext2 normal linux configfile search search_fs_uuid test echo loadenv minicmd"
BOOT_S = 600  # of one boot, emulated on a loaded machine

# Which kernels the archive has today is asked inside; the oldest and the newest of the small ones for virtual machines.
KERNELS = """set -e
names=$(apt-cache pkgnames linux-image-6.1 | grep -- '-cloud-amd64$' | sort -V)
set -- $names
first=$1
for last; do :; done
apt-get install -qq -y --no-install-recommends "$first" "$last"
"""
DEFAULTS = 'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_TERMINAL=console\nGRUB_CMDLINE_LINUX="console=ttyS0"\n'
FIRST_CONFIG = """set timeout=0
menuentry first {{
    search --no-floppy --fs-uuid --set=root {uuid}
    linux /boot/vmlinuz-{kernel} root=UUID={uuid} ro console=ttyS0
    initrd /boot/initrd.img-{kernel}
}}
"""


def missing_tools() -> list[str]:
    """Programs that are not on this machine; those of sbin count."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [tool for tool in TOOLS if shutil.which(tool, path=path) is None]


def tree(folder: Path, *, also: Sequence[str] = (), pick_kernels: str = KERNELS) -> tuple[Path, list[str]]:
    """Make the file system's content; returns it, and its kernels, the oldest first, which boots."""
    recipe = image.recipe(SUITE, image.machine_mirror())
    sources, conf, pick = folder / "sources.list", folder / "apt.conf", folder / "kernels"
    sources.write_text(recipe.sources, encoding="utf-8")
    conf.write_text(recipe.apt_conf, encoding="utf-8")
    pick.write_text(pick_kernels, encoding="utf-8")
    root = folder / "tree"
    run(
        *("mmdebstrap", "--quiet", "--variant=minbase", "--skip=cleanup/apt/lists", f"--aptopt={conf}"),
        f"--include={','.join((*PACKAGES, *also))}",
        f'--customize-hook=chroot "$1" sh -s <{pick}',
        *(SUITE, str(root), str(sources)),
    )
    found = sorted((path.name[len("vmlinuz-") :] for path in (root / "boot").glob("vmlinuz-*")), key=natural)
    assert found
    (root / "etc/default/grub").write_text(DEFAULTS, encoding="utf-8")
    (root / "etc/fstab").write_text(f"UUID={UUID} / ext4 defaults 0 1\n", encoding="utf-8")
    boot = root / "boot/grub"
    shutil.copytree(root / "usr/lib/grub/i386-pc", boot / "i386-pc")
    (boot / "grub.cfg").write_text(FIRST_CONFIG.format(uuid=UUID, kernel=found[0]), encoding="utf-8")
    run("chroot", str(root), "grub-editenv", "/boot/grub/grubenv", "create")
    prefix = "(hd0,msdos1)/boot/grub"
    core = ("-O", "i386-pc", "-p", prefix, "-o", "/boot/grub/core.img", *MODULES.split())
    run("chroot", str(root), "grub-mkimage", *core)
    return root, found


def disk(root: Path, path: Path, size_mib: int = SIZE_MIB) -> None:
    """Put the disk together."""
    size = size_mib << 20
    with path.open("wb") as out:
        out.truncate(size)
    blocks = (size - FIRST * SECTOR) // 4096
    options = f"offset={FIRST * SECTOR},nodiscard"
    run(
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-U",
        UUID,
        "-E",
        options,
        "-d",
        str(root),
        str(path),
        str(blocks),
    )
    boot = (root / "usr/lib/grub/i386-pc/boot.img").read_bytes()
    core = (root / "boot/grub/core.img").read_bytes()
    assert len(core) < (FIRST - 1) * SECTOR
    # Active, of type Linux, from FIRST to the end; cylinders and heads mean nothing any more.
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", FIRST, size // SECTOR - FIRST)
    with path.open("r+b") as out:
        out.write(boot[:446] + entry + bytes(48) + b"\x55\xaa" + core)


def play(path: Path, log: Path, *, boots: int) -> str:
    """Run the machine until it powers itself off; returns what it said on its serial line."""
    began = time.monotonic()
    machine = _start(path, log, ("-nic", "none"))
    try:
        machine.wait(boots * BOOT_S)
    finally:
        machine.kill()
        machine.wait()
    said = log.read_text(encoding="utf-8", errors="replace")
    assert machine.returncode == 0, said[-3000:]
    return f"{said}\n{time.monotonic() - began:.0f} s in all\n"


def _start(path: Path, log: Path, network: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [
        *("qemu-system-x86_64", "-m", "1024", "-accel", "tcg"),
        *("-display", "none", "-monitor", "none", *network, "-serial", f"file:{log}"),
        *("-drive", f"file={path},format=raw,if=virtio,cache=unsafe"),
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


# What a machine needs to be a host that people log in to.
HOST_PACKAGES = ("openssh-server", "sudo", "iproute2", "iputils-ping", "ca-certificates", "kmod", "procps", "dbus")
ONE_KERNEL = """set -e
apt-get install -qq -y --no-install-recommends linux-image-cloud-amd64
"""
HOST_MIB = 4096  # the checks want a gigabyte free; the file is sparse
NETWORK = """[Match]
Name=en* eth*
[Network]
Address={address}
Gateway={gateway}
"""


def host_tree(folder: Path, public_key: str, *, also: Sequence[str] = ()) -> Path:
    """The file system of hosts: the lab's login and key, sshd, systemd's network, and one kernel with its modules."""
    root, _ = tree(folder, also=(*HOST_PACKAGES, *also), pick_kernels=ONE_KERNEL)
    home = f"/home/{access.USER}"
    run("chroot", str(root), "useradd", "-g", access.USER, "-m", "-s", "/bin/bash", "-p", "*", access.USER)
    (root / f"etc/sudoers.d/{access.USER}").write_text(f"{access.USER} ALL=(ALL) NOPASSWD: ALL\n")
    keys = root / f".{home}/.ssh/authorized_keys"
    keys.parent.mkdir()
    keys.write_text(public_key + "\n", encoding="utf-8")
    run("chroot", str(root), "chown", "-R", f"{access.USER}:", f"{home}/.ssh")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    run("chroot", str(root), "systemctl", "enable", "systemd-networkd", "ssh")
    return root


class Machine:
    """A host that is a virtual machine, on a lab's bridge; as a context manager it ends with the block."""

    def __init__(self, name: str, address: str, gateway: str, bridge: str, folder: Path) -> None:
        self.name, self.address, self.log = name, address, folder / f"{name}.log"
        self._gateway, self._bridge, self._disk = gateway, bridge, folder / f"{name}.img"
        self._running: subprocess.Popen[bytes] | None = None

    def make(self, root: Path) -> access.Entry:
        """Put its disk together out of the hosts' tree, with keys of its own; returns how it is reached."""
        for old in (root / "etc/ssh").glob("ssh_host_*"):
            old.unlink()
        run("ssh-keygen", "-A", "-f", str(root))
        (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (root / "etc/hostname").write_text(f"{self.name}\n")
        (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        network = NETWORK.format(address=self.address, gateway=self._gateway)
        (root / "etc/systemd/network/10-lab.network").write_text(network)
        disk(root, self._disk, HOST_MIB)
        keys = sorted((root / "etc/ssh").glob("ssh_host_*_key.pub"))
        told = tuple(" ".join(key.read_text().split()[:2]) for key in keys)
        return access.Entry(self.name, self.address.partition("/")[0], told, "virtual machine")

    def __enter__(self) -> Machine:
        tap = f"vm{os.getpid() % 10**7}-{self.name[:4]}"
        mac = ":".join(("52:54:00", *(f"{byte:02x}" for byte in uuid.uuid4().bytes[:3])))
        network = ("-netdev", f"tap,id=lab,ifname={tap},script=no,downscript=no")
        self._running = _start(self._disk, self.log, (*network, "-device", f"virtio-net-pci,netdev=lab,mac={mac}"))
        ends = time.monotonic() + 20
        while not Path(f"/sys/class/net/{tap}").exists():  # QEMU makes it, and it goes with QEMU
            assert time.monotonic() < ends and self._running.poll() is None, "no interface of the machine"
            time.sleep(0.05)
        run("ip", "link", "set", tap, "master", self._bridge, "up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.wait()


def run(*words: str) -> None:
    """Run a program to its good end."""
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    environment["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr[-3000:]}"
