"""Tells a package of NVIDIA's driver, and its branch, by name and version alone."""

from __future__ import annotations

import re

_NAME = re.compile(
    r"(xserver-xorg-video-nvidia|kmod-nvidia|firmware-nvidia|(lib)?(nvidia|cuda1|nvcuvid1|nvoptix1)|lib[a-z0-9]+-nvidia)"
)
# 535.261.03-1 is a driver's version; 11.8.89 (the CUDA toolkit's) and 1.17.4 (the container toolkit's) are not.
_VERSION = re.compile(r"(?:\d+:)?(\d{3})\.\d+")
# One version serves every branch: tools that Debian builds from sources of their own, and what only configures
# (nvidia-opencl-common 550 stands beside nvidia-tesla-535-opencl-icd in Debian 13).
_SHARED = re.compile(
    r"nvidia-(modprobe|persistenced|settings|xconfig|legacy-check|libopencl1|[a-z]+-common)|libxnvctrl0"
)


def branch_of(name: str, version: str) -> str | None:
    """`nvidia-smi 535.261.03-1` is of branch `535`; `nvidia-modprobe` and what is no driver are of none."""
    if _SHARED.fullmatch(name) or not _NAME.match(name):
        return None
    match = _VERSION.match(version)
    return match[1] if match else None
