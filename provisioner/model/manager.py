"""Which package manager a system has: apt with dpkg, or dnf with rpm."""

from __future__ import annotations

import re
from typing import Literal

Manager = Literal["apt", "dnf"]

READ: dict[str, Manager] = {"debian": "apt", "ubuntu": "apt", "rhel": "dnf", "rocky": "dnf"}
"""What the ids of systems begin with whose packages can be read."""


def manager_of(os: str) -> Manager:
    """`rocky-9` has dnf. A system that nobody knows is taken for one like Debian, as it always was."""
    return READ.get(os.partition("-")[0], "apt")


LOCKS = "/etc/dnf/plugins/versionlock.list"
PLUGIN = "/etc/dnf/plugins/versionlock.conf"


def plugin_is_on(text: object) -> bool:
    """Whether dnf's version lock counts, by its own configuration, which comes with it."""
    return isinstance(text, str) and re.search(r"(?mi)^\s*enabled\s*=\s*(0|no|false|off)\s*$", text) is None


def beside_each_other(name: str) -> bool:
    """Whether dnf keeps several versions of a package (installonlypkgs): kernels and what is built for one of them."""
    return re.fullmatch(r"kernel(-.*)?|kmod-nvidia-\d.*", name) is not None and name != "kernel-headers"


def as_package(architecture: str) -> tuple[str, ...]:
    """The architectures of packages that a machine runs, in the words of dpkg and of rpm: `amd64` runs `noarch`."""
    return {
        "amd64": ("amd64", "all", "x86_64", "noarch"),
        "arm64": ("arm64", "all", "aarch64", "noarch"),
    }.get(architecture, (architecture, "all", "noarch"))
