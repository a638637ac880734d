"""A virtual machine of Debian packages with GRUB and two kernels, run by QEMU; no loop device and no network is needed.

The disk is put together from parts: GRUB's boot sector and core, one entry of a partition table, and a file system that
mke2fs fills from a folder. The processor is emulated: nested KVM was seen to take the machine and then stand still.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

from provisioner.adapters.lab import image
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


def tree(folder: Path) -> tuple[Path, str, str]:
    """Make the file system's content; returns it, and the older and the newer of its two kernels."""
    recipe = image.recipe(SUITE, image.machine_mirror())
    sources, conf, pick = folder / "sources.list", folder / "apt.conf", folder / "kernels"
    sources.write_text(recipe.sources, encoding="utf-8")
    conf.write_text(recipe.apt_conf, encoding="utf-8")
    pick.write_text(KERNELS, encoding="utf-8")
    root = folder / "tree"
    run(
        *("mmdebstrap", "--quiet", "--variant=minbase", f"--aptopt={conf}"),
        f"--include={','.join(PACKAGES)}",
        f'--customize-hook=chroot "$1" sh -s <{pick}',
        *(SUITE, str(root), str(sources)),
    )
    found = sorted((path.name[len("vmlinuz-") :] for path in (root / "boot").glob("vmlinuz-*")), key=natural)
    assert len(found) == 2, found
    (root / "etc/default/grub").write_text(DEFAULTS, encoding="utf-8")
    (root / "etc/fstab").write_text(f"UUID={UUID} / ext4 defaults 0 1\n", encoding="utf-8")
    boot = root / "boot/grub"
    shutil.copytree(root / "usr/lib/grub/i386-pc", boot / "i386-pc")
    (boot / "grub.cfg").write_text(FIRST_CONFIG.format(uuid=UUID, kernel=found[0]), encoding="utf-8")
    run("chroot", str(root), "grub-editenv", "/boot/grub/grubenv", "create")
    prefix = "(hd0,msdos1)/boot/grub"
    core = ("-O", "i386-pc", "-p", prefix, "-o", "/boot/grub/core.img", *MODULES.split())
    run("chroot", str(root), "grub-mkimage", *core)
    return root, found[0], found[1]


def disk(root: Path, path: Path) -> None:
    """Put the disk together."""
    size = SIZE_MIB << 20
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
    command = [
        *("qemu-system-x86_64", "-m", "1024", "-accel", "tcg"),
        *("-display", "none", "-monitor", "none", "-nic", "none", "-serial", f"file:{log}"),
        *("-drive", f"file={path},format=raw,if=virtio,cache=unsafe"),
    ]
    began = time.monotonic()
    machine = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        machine.wait(boots * BOOT_S)
    finally:
        machine.kill()
        machine.wait()
    said = log.read_text(encoding="utf-8", errors="replace")
    assert machine.returncode == 0, said[-3000:]
    return f"{said}\n{time.monotonic() - began:.0f} s in all\n"


def run(*words: str) -> None:
    """Run a program to its good end."""
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    environment["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr[-3000:]}"
