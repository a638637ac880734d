"""The program that reads boot images finds the module in every kind of them, and says when an image ends too early."""

from __future__ import annotations

import ast
import gzip
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.probe.request import BOOT_MODULES

SOURCE = BOOT_MODULES.argv[-1]


def archive(*entries: tuple[str, bytes]) -> bytes:
    """A cpio archive of the kind newc, as the kernel's documentation describes it (buffer-format.rst)."""
    made = b""
    for number, (name, data) in enumerate([*entries, ("TRAILER!!!", b"")]):
        fields = [number, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        made += head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
    return made + b"\0" * (-len(made) % 512)


def module(version: str) -> bytes:
    return b"\x7fELF\2" + b"\0" * 5000 + b"\0version=" + version.encode() + b"\0license=NVIDIA\0" + b"\1" * 3000


def zstd(data: bytes) -> bytes:
    return subprocess.run(
        ["zstd", "-c"], input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    ).stdout


def run(boot: Path) -> tuple[int, str, str]:
    source = SOURCE.replace("/boot/initrd.img-*", f"{boot}/initrd.img-*")
    done = subprocess.run(
        [sys.executable, "-IS", "-c", source], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout.replace(str(boot), "/boot"), done.stderr.replace(str(boot), "/boot")


EARLY = archive(("kernel/x86/microcode/AuthenticAMD.bin", b"m" * 3001))
MAIN = archive(
    ("usr/bin/sh", b"#!" * 700),
    ("usr/lib/modules/6.1.0/updates/dkms/nvidia-drm.ko", module("1.2")),
    ("usr/lib/modules/6.1.0/updates/dkms/nvidia.ko", module("550.127.05")),
    ("usr/lib/firmware/nvidia/550.127.05/gsp_ga10x.bin", b"f" * 9999),
)


@pytest.mark.parametrize(
    "pack",
    [
        pytest.param(lambda data: data, id="plain"),
        pytest.param(gzip.compress, id="gzip"),
        pytest.param(lzma.compress, id="xz"),
        pytest.param(zstd, id="zstd"),
    ],
)
@pytest.mark.parametrize("early", [b"", EARLY, EARLY + EARLY], ids=["alone", "microcode", "two-microcodes"])
def test_the_module_is_found(pack: Callable[[bytes], bytes], early: bytes, tmp_path: Path) -> None:
    """Behind any number of uncompressed archives, and not its helpers."""
    (tmp_path / "initrd.img-6.1.0").write_bytes(early + pack(MAIN))

    assert run(tmp_path) == (
        0,
        "/boot/initrd.img-6.1.0 usr/lib/modules/6.1.0/updates/dkms/nvidia.ko 550.127.05\n",
        "",
    )


def test_modules_may_be_packed_themselves_and_have_debians_names(tmp_path: Path) -> None:
    """`nvidia-current.ko.xz` is the module of Debian 13."""
    name = "usr/lib/modules/6.12/updates/dkms/nvidia-current"
    image = archive(
        (f"{name}.ko.xz", lzma.compress(module("550.163.01"))), (f"{name}-uvm.ko.xz", lzma.compress(module("1.2")))
    )
    (tmp_path / "initrd.img-6.12").write_bytes(gzip.compress(image))

    assert run(tmp_path)[1] == f"/boot/initrd.img-6.12 {name}.ko.xz 550.163.01\n"


def test_every_image_is_read_and_one_that_ends_too_early_is_named(tmp_path: Path) -> None:
    """What stands before the damage is still told."""
    whole = gzip.compress(MAIN)
    (tmp_path / "initrd.img-1").write_bytes(EARLY + whole[: len(whole) // 2])
    (tmp_path / "initrd.img-2").write_bytes(EARLY + whole)
    code, out, problems = run(tmp_path)

    assert code == 1
    assert "/boot/initrd.img-2 " in out
    assert problems == "/boot/initrd.img-1: EOFError\n"


def test_no_image_and_no_module_say_nothing(tmp_path: Path) -> None:
    """Both end well: there was nothing to be found."""
    assert run(tmp_path) == (0, "", "")
    (tmp_path / "initrd.img-3").write_bytes(gzip.compress(archive(("bin/sh", b"x"))))
    assert run(tmp_path) == (0, "", "")


def test_it_runs_on_old_hosts() -> None:
    """Nothing that Python 3.6 cannot parse; and it opens files for reading only."""
    tree = ast.parse(SOURCE, feature_version=(3, 6))
    opened = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "open"]

    assert [ast.unparse(node.args[1]) for node in opened] == ["'rb'"]
