"""A repository of stand-in RPMs: names, versions and dependencies of what NVIDIA and Docker offer for RHEL-likes.

Every package says in its summary that it is a stand-in. Spec files are written here; the host that has rpmbuild builds
them. Names and the epoch 3 of the driver's packages are those of NVIDIA's page on version locking and of its packaging
(NVIDIA/yum-packaging-nvidia-driver); the driver builds no module, the engine has no daemon.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

WHERE = "/srv/standins"


@dataclass(frozen=True)
class StandIn:
    """One package; `files` are made empty."""

    name: str
    version: str
    release: str = "1"
    epoch: int | None = None
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    obsoletes: tuple[str, ...] = ()
    architecture: str = "x86_64"
    files: tuple[str, ...] = ()

    @property
    def evr(self) -> str:
        """`3:580.95.05-1.el9`, as everything prints it that knows of epochs."""
        return f"{self.epoch}:{self.version}-{self.release}" if self.epoch else f"{self.version}-{self.release}"

    @property
    def spec(self) -> str:
        relations = [
            *(f"Requires: {text}" for text in self.requires),
            *(f"Provides: {text}" for text in self.provides),
            *(f"Conflicts: {text}" for text in self.conflicts),
            *(f"Obsoletes: {text}" for text in self.obsoletes),
        ]
        lines = [
            f"Name: {self.name}",
            *([f"Epoch: {self.epoch}"] if self.epoch else []),
            f"Version: {self.version}",
            f"Release: {self.release}",
            f"Summary: stand-in for {self.name}, only for lab hosts",
            "License: none",
            *(["BuildArch: noarch"] if self.architecture == "noarch" else []),
            "AutoReqProv: no",
            *relations,
            "%description",
            "A stand-in.",
            "%install",
            "mkdir -p %{buildroot}",
            *(f"mkdir -p %{{buildroot}}{Path(path).parent}; touch %{{buildroot}}{path}" for path in self.files),
            "%files",
            *self.files,
        ]
        return "\n".join(lines) + "\n"


def driver(version: str, dist: str = "el9") -> list[StandIn]:
    """A driver as NVIDIA's repository for RHEL-likes carries it: one version for all, either of two module packages."""
    of = f"3:{version}"

    # A package that calls a foreign one obsolete, as renamed ones of vendors do.
    obsolete = ("bystander",) if version.startswith("590.") else ()

    def one(name: str, *requires: str, **more: tuple[str, ...] | str) -> StandIn:
        return StandIn(name, version, f"1.{dist}", 3, requires, **more)  # type: ignore[arg-type]

    return [
        one(
            "kmod-nvidia-open-dkms",
            f"nvidia-kmod-common = {of}",
            "dkms",
            provides=(f"nvidia-kmod = {of}",),
            conflicts=("kmod-nvidia-latest-dkms",),
            files=(f"/usr/src/nvidia-open-{version}/dkms.conf",),
            architecture="noarch",
        ),
        one(
            "kmod-nvidia-latest-dkms",
            f"nvidia-kmod-common = {of}",
            "dkms",
            provides=(f"nvidia-kmod = {of}",),
            conflicts=("kmod-nvidia-open-dkms",),
            files=(f"/usr/src/nvidia-{version}/dkms.conf",),
            architecture="noarch",
        ),
        one("nvidia-kmod-common", f"nvidia-kmod = {of}", architecture="noarch"),
        one(
            "nvidia-driver-cuda",
            f"nvidia-driver-cuda-libs = {of}",
            f"nvidia-persistenced = {of}",
            obsoletes=obsolete,
        ),
        one(
            "nvidia-driver-cuda-libs",
            f"libnvidia-ml = {of}",
            files=(f"/usr/lib64/libcuda.so.{version}",),
        ),
        one("libnvidia-ml", files=(f"/usr/lib64/libnvidia-ml.so.{version}",)),
        one("nvidia-persistenced"),
        one("nvidia-open", f"kmod-nvidia-open-dkms = {of}", f"nvidia-driver-cuda = {of}", architecture="noarch"),
    ]


def toolkit(version: str) -> list[StandIn]:
    """The four packages of the container toolkit, each of exactly this version; no dist in their release."""
    base = "nvidia-container-toolkit-base"
    return [
        StandIn("libnvidia-container1", version),
        StandIn("libnvidia-container-tools", version, requires=(f"libnvidia-container1 >= {version}-1",)),
        StandIn(base, version),
        StandIn(
            "nvidia-container-toolkit",
            version,
            requires=(f"{base} = {version}-1", f"libnvidia-container-tools >= {version}-1"),
        ),
    ]


def docker(version: str, dist: str = "el9") -> list[StandIn]:
    """Docker's own packages; containerd.io takes the place of runc, as the vendor's does."""
    release = f"1.{dist}"
    return [
        StandIn("docker-ce", version, release, 3, ("containerd.io >= 1.7.27", "docker-ce-cli")),
        StandIn("docker-ce-cli", version, release, 1),
        StandIn(
            "containerd.io", "1.7.29", release, conflicts=("runc",), obsoletes=("containerd",), provides=("containerd",)
        ),
        StandIn("docker-buildx-plugin", "0.29.1", release),
        StandIn("docker-compose-plugin", "2.40.3", release),
    ]


def kernel(release: str, dist: str = "el9_6") -> list[StandIn]:
    """A kernel and what modules are built against; `release` such as 5.14.0-570.12.1."""
    version, _, rest = release.partition("-")
    whole = f"{rest}.{dist}"
    uname = f"{release}.{dist}.x86_64"
    installonly = ("installonlypkg(kernel)",)
    return [
        StandIn("kernel", version, whole, requires=(f"kernel-core = {version}-{whole}",), provides=installonly),
        StandIn("kernel-core", version, whole, provides=installonly, files=(f"/lib/modules/{uname}/vmlinuz",)),
        StandIn("kernel-devel", version, whole, provides=installonly, files=(f"/usr/src/kernels/{uname}/Makefile",)),
    ]


EVERYTHING = (
    StandIn("dkms", "3.2.1", "1.el9", architecture="noarch"),
    StandIn("bystander", "1.0", "1.el9"),
    StandIn("runc", "1.2.5", "2.el9"),
    *toolkit("1.18.1"),
    *toolkit("1.19.1"),
    *docker("28.5.2"),
    *docker("29.3.0"),
    *driver("580.95.05"),
    *driver("580.159.03"),
    *driver("590.48.01"),
    *kernel("5.14.0-570.12.1"),
    *kernel("5.14.0-570.17.1"),
)

_MODULE = """---
document: modulemd
version: 2
data:
  name: nvidia-driver
  stream: "{branch}-open"
  version: 20261101000000
  context: {branch}abcde
  arch: x86_64
  summary: stand-in
  description: stand-in
  license:
    module: [none]
  dependencies:
    - requires:
        platform: [el9]
  artifacts:
    rpms:
{rpms}
...
"""


def streams(packages: Iterable[StandIn] = EVERYTHING) -> str:
    """Return the module streams of NVIDIA's repository for release 9: one for each branch, with all of its drivers."""
    branches: dict[str, list[str]] = {}
    for package in packages:
        if package.epoch == 3 and "nvidia" in package.name:
            line = f"      - {package.name}-{package.evr}.{package.architecture}"
            branches.setdefault(package.version.partition(".")[0], []).append(line)
    return "".join(_MODULE.format(branch=branch, rpms="\n".join(rpms)) for branch, rpms in branches.items())


BUILD = f"""set -eu
cd {WHERE}
mkdir -p repo
# Each in a folder of its own: three at once that make the same one can fail.
build() {{ ls specs/*."$1".spec | xargs -P 3 -I SPEC rpmbuild --quiet --define "_topdir {WHERE}/work/SPEC" \
  --define "_rpmdir {WHERE}/repo" --define "_build_name_fmt %%{{NAME}}-%%{{VERSION}}-%%{{RELEASE}}.%%{{ARCH}}.rpm" \
  --target "$1" -bb SPEC >>build.log 2>&1 || {{ grep -i error build.log >&2 || tail -n 20 build.log >&2; exit 1; }}; }}
build x86_64
build noarch
rm -rf work
createrepo_c --quiet repo
modifyrepo_c --mdtype=modules modules.yaml repo/repodata >/dev/null
"""
"""A shell script that builds what was unpacked at WHERE; needs rpmbuild and createrepo_c there."""


def specs(packages: Iterable[StandIn] = EVERYTHING) -> bytes:
    """Return the spec files as a tar archive, to be unpacked at `WHERE` on a host."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for package in packages:
            data = package.spec.encode()
            info = tarfile.TarInfo(
                f"specs/{package.name}-{package.version}-{package.release}.{package.architecture}.spec"
            )
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, text in (("build.sh", BUILD), ("modules.yaml", streams(packages))):
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()
