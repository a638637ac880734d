"""A package repository of stand-ins: names, versions and dependencies of what only NVIDIA and Docker offer.

Every package says in its description that it is a stand-in. The driver's builds a real kernel module by DKMS, of a few
lines that know a version; the toolkit's `nvidia-ctk` writes a CDI spec from what is installed; docker-ce has no daemon.
The repository is a folder without suites, as NVIDIA's are, signed by a key that is made for it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import tarfile
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

WHERE = "/srv/standins"


@dataclass(frozen=True)
class StandIn:
    """One package. `files` maps path to text; a text that begins with `-> ` is a link, one with `#!` is executable."""

    name: str
    version: str
    depends: str = ""
    conflicts: str = ""
    source: str = ""
    architecture: str = "amd64"
    files: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)  # maintainer scripts by name


NVIDIA_CTK = """#!/bin/sh
# A stand-in: knows `cdi generate --output=FILE` and writes the version of the libraries that are installed.
set -eu
test "$1 $2" = "cdi generate" || { echo "stand-in: $* is not known" >&2; exit 2; }
for word in "$@"; do case $word in --output=*) output=${word#--output=} ;; esac; done
library=$(readlink -f /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1)
version=${library##*.so.}
mkdir -p "$(dirname "$output")"
cards=$(ls -d /dev/nvidia[0-9]* 2>/dev/null | sed 's,.*nvidia,,; s,.*,  - name: "&",')
cat >"$output" <<SPEC
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
$cards
  - name: all
containerEdits:
  mounts:
    - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.$version
SPEC
echo "stand-in: wrote $output" >&2
"""

# From 1.18 on the toolkit writes its spec at each boot, for /var/run is empty then.
CDI_REFRESH = """[Unit]
Description=stand-in for the unit that makes the CDI spec
ConditionPathExists=/usr/bin/nvidia-smi
[Service]
Type=oneshot
ExecStart=/usr/bin/nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml
[Install]
WantedBy=multi-user.target
"""

MODULE = """#include <linux/module.h>
/* A stand-in for NVIDIA's module: the line below is what the kernel would show in /proc/driver/nvidia/version. */
static const char banner[] __attribute__((used)) =
    "NVIDIA UNIX x86_64 Kernel Module  @VERSION@  Thu Oct  1 00:00:00 UTC 2026";
static int __init standin_init(void) { return banner[0] ? 0 : -1; }
static void __exit standin_exit(void) {}
module_init(standin_init);
module_exit(standin_exit);
MODULE_LICENSE("Proprietary");
MODULE_VERSION("@VERSION@");
"""

DKMS_CONF = """PACKAGE_NAME="nvidia"
PACKAGE_VERSION="@VERSION@"
BUILT_MODULE_NAME[0]="nvidia"
DEST_MODULE_LOCATION[0]="/updates/dkms"
MAKE[0]="make -C ${kernel_source_dir} M=${dkms_tree}/nvidia/@VERSION@/build modules"
AUTOINSTALL="yes"
"""

PERSISTENCED = """[Unit]
Description=stand-in for the NVIDIA persistence daemon
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""

LIB = "/usr/lib/x86_64-linux-gnu"


def toolkit(version: str) -> list[StandIn]:
    """The four packages of the container toolkit, each of exactly this version."""
    source = "nvidia-container-toolkit"
    base = "nvidia-container-toolkit-base"
    refresh = "nvidia-cdi-refresh.service"
    new = int(version.split(".")[1]) >= 18
    return [
        StandIn("libnvidia-container1", version, source="libnvidia-container"),
        StandIn(
            "libnvidia-container-tools", version, f"libnvidia-container1 (>= {version})", source="libnvidia-container"
        ),
        StandIn(
            base,
            version,
            source=source,
            files={
                "/usr/bin/nvidia-ctk": NVIDIA_CTK,
                **({"/lib/systemd/system/" + refresh: CDI_REFRESH} if new else {}),
            },
            scripts={
                "postinst": f"#!/bin/sh\nset -e\nsystemctl enable {refresh}\n",
                "prerm": f"#!/bin/sh\nset -e\nsystemctl disable {refresh}\n",
            }
            if new
            else {},
        ),
        StandIn(
            "nvidia-container-toolkit",
            version,
            f"{base} (= {version}), libnvidia-container-tools (>= {version})",
            source=source,
            files={"/usr/bin/nvidia-container-runtime": '#!/bin/sh\nexec runc "$@"\n'},
        ),
    ]


def docker(version: str) -> list[StandIn]:
    """Docker's own packages; they take the place of docker.io, as the vendor's do."""
    return [
        StandIn(
            "docker-ce",
            version,
            "containerd.io (>= 1.7.27), docker-ce-cli",
            "docker (<< 1.5~), docker.io",
            files={"/usr/bin/dockerd": "#!/bin/sh\necho 'stand-in: no daemon' >&2\nexit 1\n"},
        ),
        StandIn("docker-ce-cli", version, conflicts="docker.io, docker-cli", source="docker-ce"),
        StandIn("containerd.io", "1.7.29-1~debian.12~bookworm", conflicts="containerd, runc"),
        StandIn("docker-buildx-plugin", "0.29.1-1~debian.12~bookworm"),
        StandIn("docker-compose-plugin", "2.40.3-1~debian.12~bookworm"),
    ]


def driver(version: str) -> list[StandIn]:
    """A branch as NVIDIA's repository for Debian names it: names of Debian's, and `cuda-drivers` above them."""
    deb = f"{version}-1"
    tree = f"/usr/src/nvidia-{version}"
    source = "nvidia-graphics-drivers"
    common = "/usr/lib/dkms/common.postinst"
    return [
        StandIn(
            "nvidia-kernel-dkms",
            deb,
            "dkms",
            source=source,
            files={
                f"{tree}/nvidia.c": MODULE.replace("@VERSION@", version),
                f"{tree}/Makefile": "obj-m += nvidia.o\n",
                f"{tree}/dkms.conf": DKMS_CONF.replace("@VERSION@", version),
            },
            scripts={
                "postinst": f'#!/bin/sh\nset -e\ntest "$1" = configure || exit 0\n'
                f'{common} nvidia {version} /usr/share/nvidia-dkms "" "$2"\nupdate-initramfs -u\n',
                "prerm": f"#!/bin/sh\nset -e\ndkms remove -m nvidia -v {version} --all || true\n",
            },
        ),
        StandIn(
            "libnvidia-ml1",
            deb,
            source=source,
            files={f"{LIB}/libnvidia-ml.so.{version}": "", f"{LIB}/libnvidia-ml.so.1": f"-> libnvidia-ml.so.{version}"},
        ),
        StandIn(
            "libcuda1",
            deb,
            source=source,
            files={f"{LIB}/libcuda.so.{version}": "", f"{LIB}/libcuda.so.1": f"-> libcuda.so.{version}"},
        ),
        # The lab puts its own program in this one's place when a card is simulated.
        StandIn(
            "nvidia-smi",
            deb,
            f"libnvidia-ml1 (= {deb})",
            source=source,
            files={"/usr/bin/nvidia-smi": "#!/bin/sh\necho 'stand-in: no card' >&2\nexit 9\n"},
        ),
        StandIn(
            "nvidia-persistenced",
            deb,
            source=source,
            files={"/lib/systemd/system/nvidia-persistenced.service": PERSISTENCED},
            scripts={"postinst": "#!/bin/sh\nset -e\nsystemctl daemon-reload\n"},
        ),
        StandIn(
            "cuda-drivers",
            deb,
            f"nvidia-kernel-dkms (= {deb}), libcuda1 (= {deb}), nvidia-smi (= {deb}), nvidia-persistenced (= {deb})",
            source=source,
        ),
        StandIn(f"nvidia-driver-pinning-{version.partition('.')[0]}", deb, source=source, architecture="all"),
    ]


EVERYTHING = (
    *toolkit("1.17.8-1"),
    *toolkit("1.19.1-1"),
    *toolkit("1.20.0-1"),
    *docker("5:28.5.2-1~debian.12~bookworm"),
    *docker("5:29.3.0-1~debian.12~bookworm"),
    *driver("580.95.05"),
    *driver("580.159.03"),
)


@dataclass(frozen=True)
class Repository:
    """A folder with packages, indexes and a signature; `fingerprint` and `key` (armored) are those that signed it."""

    folder: Path
    key: str
    fingerprint: str

    def packed(self) -> bytes:
        """The folder as a tar archive, to be unpacked at `WHERE` on a host."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            archive.add(self.folder, arcname=".")
        return buffer.getvalue()


def build(folder: Path, packages: Iterable[StandIn] = EVERYTHING) -> Repository:
    """Make the repository in `folder`. Needs dpkg-deb and gpg here; raises CalledProcessError with their words."""
    debs, keys = folder / "repository", folder / "gnupg"
    debs.mkdir()
    keys.mkdir(mode=0o700)
    once = {(package.name, package.version): package for package in packages}
    stanzas = [_made(package, debs, folder) for package in once.values()]
    index = "\n".join(sorted(stanzas)).encode()
    (debs / "Packages").write_bytes(index)
    (debs / "Packages.gz").write_bytes(gzip.compress(index, mtime=0))
    rows = [
        f" {hashlib.sha256((debs / name).read_bytes()).hexdigest()} {(debs / name).stat().st_size} {name}"
        for name in ("Packages", "Packages.gz")
    ]
    release = "\n".join(
        [
            "Origin: stand-ins",
            "Label: stand-ins of the lab",
            "Date: Tue, 24 Nov 2026 03:07:00 UTC",
            "SHA256:",
            *rows,
        ]
    )
    gpg = ["gpg", "--homedir", str(keys), "--batch", "--quiet", "--no-tty"]
    _run(*gpg, "--passphrase", "", "--quick-generate-key", "stand-ins of the lab", "rsa3072", "sign", "never")
    _run(*gpg, "--output", str(debs / "InRelease"), "--clearsign", given=release + "\n")
    listed = _run(*gpg, "--with-colons", "--list-keys")
    fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
    key = _run(*gpg, "--armor", "--export")
    _run("gpgconf", "--homedir", str(keys), "--kill", "gpg-agent")
    return Repository(debs, key, fingerprint)


def _made(package: StandIn, debs: Path, work: Path) -> str:
    """Build one archive and return its stanza of the index."""
    tree = work / "trees" / f"{package.name}_{package.version.replace(':', '%3a')}"
    (tree / "DEBIAN").mkdir(parents=True)
    for path, text in package.files.items():
        target = tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            target.symlink_to(text[3:])
        else:
            target.write_text(text, encoding="utf-8")
            target.chmod(0o755 if text.startswith("#!") else 0o644)
    for name, text in package.scripts.items():
        script = tree / "DEBIAN" / name
        script.write_text(text, encoding="utf-8")
        script.chmod(0o755)
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": package.architecture,
        "Maintainer": "The lab <lab@example.invalid>",
        "Source": package.source,
        "Depends": package.depends,
        "Conflicts": package.conflicts,
        "Description": f"stand-in for {package.name}, only for lab hosts",
    }
    control = "".join(f"{name}: {value}\n" for name, value in fields.items() if value)
    (tree / "DEBIAN" / "control").write_text(control, encoding="utf-8")
    archive = debs / f"{tree.name}_{package.architecture}.deb"
    _run("dpkg-deb", "--root-owner-group", "--build", "-Zgzip", str(tree), str(archive))
    data = archive.read_bytes()
    # apt takes a `%` in an index for the beginning of an escaped character.
    name = archive.name.replace("%", "%25")
    return control + textwrap.dedent(
        f"""\
        Filename: ./{name}
        Size: {len(data)}
        SHA256: {hashlib.sha256(data).hexdigest()}
        """
    )


def _run(*argv: str, given: str | None = None) -> str:
    return subprocess.run(argv, input=given, capture_output=True, text=True, check=True).stdout
