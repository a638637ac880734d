"""What keep.py does otherwise where rpm and dnf are: stands behind it in the rendered run, and its names count.

Standard library, Python 3.6 and newer. An RPM cannot be made again from what is installed, so what is replaced comes
from where the change before put it by, or from the repositories while they still serve it; else the run ends here.
"""

# Text all the way: a host's paths need not be UTF-8, and Python 3.6 has no pathlib that renames and links alike.
# ruff: noqa: PTH110, PTH118, PTH123, PTH208

import os
import re
import shutil
import subprocess
import sys
import tempfile

TYPING = False
if TYPING:
    from collections.abc import Iterable
    from typing import Any

    from provisioner.render.keep import STATE, output, put

    Package = dict[str, Any]

MANAGER = "dnf"
FOLDER = "rpms"
LOCKS = "/etc/dnf/plugins/versionlock.list"
FORM = "%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{ARCH}\t%{SIZE}\n"


def text_of_locks() -> str:
    try:
        with open(LOCKS) as file:
            return file.read()
    except OSError:
        return ""


def is_held(name: str, version: str, locks: str) -> bool:
    """`nvidia-driver-cuda-3:580.95.05-1.el9.*` as a line of the version lock; an epoch of 0 may stand there or not."""
    spellings = [version] if ":" in version else [version, "0:" + version]
    return any(
        re.search("(?m)^" + re.escape(name + "-" + spelling) + r"\.\S+$", locks) is not None for spelling in spellings
    )


def installed(names: "Iterable[str]") -> "dict[str, Package]":
    """What is there of `names`; of kernels that stand side by side the last one. Sizes in bytes."""
    found = {}  # type: dict[str, Package]
    locks = text_of_locks()
    for line in output("rpm", "-qa", "--qf", FORM).splitlines():
        name, version, architecture, size = line.split("\t")
        if name in names:
            found[name] = {
                "version": version,
                "architecture": architecture,
                "held": is_held(name, version, locks),
                "size": int(size or 0),
            }
    return found


def archive_name(name: str, package: "Package") -> str:
    return "{}-{}.{}.rpm".format(name, package["version"].split(":")[-1], package["architecture"])


def archive_size(name: str, package: "Package") -> int:
    """What is installed bounds it, more or less: an RPM is compressed."""
    return int(package["size"])


def automatic_ones() -> "set[str]":
    """dnf's own record of what came along as a dependency stays with the package, whichever version it has."""
    return set()


def keep_archives(packages: "dict[str, Package]", folder: str, history: str) -> "dict[str, str]":
    """Put an archive of each package into `folder`; returns name → how it was had."""
    missing = {}
    had = {}
    for name, package in sorted(packages.items()):
        target = os.path.join(folder, archive_name(name, package))
        places = [os.path.join(STATE, "rpms"), *(os.path.join(history, e, "rpms") for e in sorted(os.listdir(history)))]
        paths = [os.path.join(place, archive_name(name, package)) for place in places]
        source = next((path for path in [target, *paths] if whole(path, name, package)), None)
        if source is None:
            missing[name] = package
            continue
        if source != target:
            put(source, target)
        had[name] = "kept before"
    for name in download(missing, folder):
        had[name] = "downloaded"
        del missing[name]
    if missing:
        wanted = ", ".join(archive_name(name, package) for name, package in sorted(missing.items()))
        sys.exit(
            "there would be no way back: no repository offers any more what is installed (" + wanted + "). "
            "Put these files into " + os.path.join(STATE, "rpms") + ", and apply again"
        )
    return had


def whole(path: str, name: str, package: "Package") -> bool:
    """The very package: rpm reads the file to its end and compares its digests."""
    if not os.path.exists(path) or not output("rpm", "--checksig", "--nosignature", path):
        return False
    said = output("rpm", "-qp", "--nosignature", "--qf", "%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}", path)
    return said == "{} {}".format(name, package["version"])


def download(packages: "dict[str, Package]", folder: str) -> "list[str]":
    """What the repositories still offer in just this version; one that does not answer offers nothing."""
    words = {name: name + "-" + p["version"] + "." + p["architecture"] for name, p in packages.items()}
    if not words:
        return []
    came = []
    place = tempfile.mkdtemp(dir=folder)
    base = ["dnf", "--quiet", "--setopt=retries=1", "--setopt=timeout=15", "--disableplugin=versionlock"]
    try:
        offered = output(*base, "repoquery", "--qf", "%{name}", *words.values()).split()
        if offered:
            subprocess.run(
                [*base, "--destdir", place, "download", *(words[name] for name in sorted(set(offered)))],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=600,
            )
        for name, package in packages.items():
            path = os.path.join(place, archive_name(name, package))
            if whole(path, name, package):
                put(path, os.path.join(folder, archive_name(name, package)))
                came.append(name)
    except subprocess.TimeoutExpired:
        pass
    finally:
        shutil.rmtree(place)
    return came
