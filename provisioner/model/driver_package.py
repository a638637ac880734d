"""Tells a package of NVIDIA's driver, its branch and the flavour of its modules, by name and version alone."""

from __future__ import annotations

import re

from provisioner.model.facts import Flavour

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


# Debian's names, then those of Ubuntu and of NVIDIA's own repository. `-support` has the settings of one flavour in
# Debian; where a repository has one for both, the module package of either needs it.
_MODULES = re.compile(
    r"nvidia(-tesla(-\d+)?|-legacy-\w+)?(-open)?-kernel(-open)?-(dkms|source|support)"
    r"|nvidia-(dkms|kernel-source)(-\d+)?(-server)?(-open)?"
)


def module_flavour(name: str) -> Flavour | None:
    """`nvidia-open-kernel-dkms` carries open modules, `nvidia-dkms-580` proprietary ones, `nvidia-smi` none."""
    if not _MODULES.fullmatch(name):
        return None
    return "open" if "open" in name.split("-") else "proprietary"
