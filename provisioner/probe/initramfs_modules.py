"""Which versions of NVIDIA's module lie in the boot images: `IMAGE NAME VERSION`, a line each. Runs on the host.

An image is a row of cpio archives (newc), the last one mostly compressed. It is streamed, never unpacked to disk; the
version stands in the module's own .modinfo. Python 3.6, and the packer that wrote the image, are all it needs.
"""

# pathlib costs more to import than it saves here.
# ruff: noqa: PTH123, PTH207

import glob
import os
import re
import subprocess

MYPY = False
if MYPY:
    from typing import Any

PACKERS = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"BZh", "bzip2"),
    (b"\x5d\0\0", "lzma"),
)
ENDS = {".gz": "gzip", ".xz": "xz", ".zst": "zstd"}
MODULE = re.compile(rb"/(nvidia(?:-current|-tesla|-legacy)?[-0-9a-z]*?)\.ko(\.\w+)?$")
PARTS = (b"-drm", b"-uvm", b"-modeset", b"-peermem")
MOST = 256 << 20


def unpacked(packer: str, given: int) -> "Any":
    child = subprocess.Popen(
        [packer, "-dc"], stdin=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, close_fds=True
    )
    return child.stdout


def version(data: bytes, end: str) -> str:
    """The version of a module; modules may be packed themselves."""
    if end in ENDS:
        done = subprocess.run([ENDS[end], "-dc"], input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        data = done.stdout
    found = re.search(rb"\0version=(\d+[0-9.]*)\0", data)
    return found.group(1).decode() if found else "?"


def skip(stream: "Any", size: int) -> None:
    while size > 0:
        part = stream.read(min(size, 1 << 20))
        if not part:
            raise EOFError
        size -= len(part)


def entries(stream: "Any", image: str) -> None:
    """Print the modules of one archive. Raises EOFError when it does not come to its end."""
    while True:
        head = stream.read(110)
        if len(head) < 110 or head[:5] != b"07070":
            raise EOFError
        size, length = int(head[54:62], 16), int(head[94:102], 16)
        name = stream.read(length + -(110 + length) % 4)[: length - 1]
        if name == b"TRAILER!!!":
            return
        found = MODULE.search(b"/" + name)
        if found and size and size < MOST and not found.group(1).endswith(PARTS):
            data = stream.read(size)
            skip(stream, -size % 4)
            print(image, os.fsdecode(name), version(data, os.fsdecode(found.group(2) or b"")), flush=True)
        else:
            skip(stream, size + -size % 4)


def read(image: str) -> None:
    with open(image, "rb") as file:
        while True:
            at = file.tell()
            head = file.read(6)
            zeros = len(head) - len(head.lstrip(b"\0"))
            if not head:
                return
            if zeros:  # archives begin at multiples of four
                file.seek(at + zeros - zeros % 4 if zeros >= 4 else at + 4)
                continue
            file.seek(at)
            if head[:5] == b"07070":
                entries(file, image)
                continue
            packer = [name for mark, name in PACKERS if head.startswith(mark)]
            if packer:
                os.lseek(file.fileno(), at, os.SEEK_SET)
                entries(unpacked(packer[0], file.fileno()), image)
            return


def main() -> int:
    bad = 0
    for path in sorted(glob.glob("/boot/initrd.img-*")):
        try:
            read(path)
        except (OSError, EOFError, ValueError) as problem:
            bad = 1
            os.write(2, f"{path}: {type(problem).__name__}\n".encode())
    return bad


if __name__ == "__main__":
    raise SystemExit(main())
