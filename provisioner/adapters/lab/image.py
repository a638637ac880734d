"""Images of lab hosts: made by mmdebstrap from this machine's own mirror, kept by the digest of their recipe."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.adapters.lab import mirror as mirrors
from provisioner.adapters.lab.mirror import Mirror
from provisioner.errors import ProvisionError

if TYPE_CHECKING:
    from docker import DockerClient

ASSETS = Path(__file__).resolve().parent / "assets"
REPOSITORY = "provision-lab"
RECIPE_LABEL = "provision.lab.recipe"
IMAGE_LABEL = "provision.lab.image"
MIRROR_VARIABLE = "PROVISION_LAB_MIRROR"
NVML_HEADER = "nvidia-nvml-dev~=13.0"  # NVIDIA's own nvml.h, as a wheel
MOST_BUILDS = 2

Say = Callable[[str], None]


@dataclass(frozen=True)
class Suite:
    """A Debian release a lab host can have; `pockets` are used where the mirror has them."""

    components: tuple[str, ...]
    pockets: tuple[str, ...]


SUITES = {
    "bullseye": Suite(("main", "contrib", "non-free"), ("updates", "security")),
    "bookworm": Suite(("main", "contrib", "non-free", "non-free-firmware"), ("updates", "security", "backports")),
    "trixie": Suite(("main", "contrib", "non-free", "non-free-firmware"), ("updates", "security")),
}

# A bare rig: a kernel that can boot, no headers, no driver. The compiler builds the simulated driver programs, and DKMS
# would bring it anyway.
PACKAGES = (
    "systemd", "systemd-sysv", "systemd-timesyncd", "dbus", "openssh-server", "python3", "sudo", "iproute2",
    "iputils-ping", "ca-certificates", "linux-image-amd64", "initramfs-tools", "kmod", "lz4", "procps", "less", "gpgv",
    "gcc", "libc6-dev", "make",
)  # fmt: skip


# Nobody loads a kernel's own modules on a lab host, and unpacking 4,000 of them is most of an image's time; nouveau
# stays, because its being there is what a blacklist is about. Documents and translations are not needed either.
LEFT_OUT = (
    "path-exclude=/lib/modules/*/kernel/*",
    "path-exclude=/usr/lib/modules/*/kernel/*",
    "path-include=/lib/modules/*/kernel/drivers/gpu/drm/nouveau/*",
    "path-include=/usr/lib/modules/*/kernel/drivers/gpu/drm/nouveau/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/doc/*/copyright",
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what an image holds."""

    suite: str
    sources: str
    apt_conf: str
    files: tuple[tuple[str, str], ...]
    packages: tuple[str, ...]
    left_out: tuple[str, ...]
    header: str

    @property
    def digest(self) -> str:
        assets = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(ASSETS.iterdir()) if p.is_file()}
        carried = {path: hashlib.sha256(Path(here).read_bytes()).hexdigest() for path, here in self.files}
        parts = [
            self.suite,
            self.sources,
            self.apt_conf,
            carried,
            list(self.packages),
            list(self.left_out),
            self.header,
            assets,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def tag(self) -> str:
        return f"{REPOSITORY}:{self.suite}-{self.digest}"


def recipe(suite: str, mirror: Mirror) -> Recipe:
    """The recipe of a suite from this mirror."""
    pockets = tuple(pocket for pocket in (f"{suite}-{part}" for part in SUITES[suite].pockets) if _has(mirror, pocket))
    return Recipe(
        suite=suite,
        sources=mirrors.source_lines(mirror, suite, SUITES[suite].components, pockets),
        apt_conf="".join(line + "\n" for line in mirror.apt_conf),
        files=mirror.files,
        packages=PACKAGES,
        left_out=LEFT_OUT,
        header=NVML_HEADER,
    )


def ensure_images(client: DockerClient, suites: Iterable[str], say: Say) -> dict[str, str]:
    """Build the images that are not there yet, two at a time, and return suite → image tag."""
    from docker.errors import ImageNotFound

    mirror = machine_mirror()
    tags: dict[str, str] = {}
    missing: list[Recipe] = []
    for suite in sorted(set(suites)):
        made = recipe(suite, mirror)
        tags[suite] = made.tag
        try:
            client.images.get(made.tag)
        except ImageNotFound:
            missing.append(made)
    if not missing:
        return tags
    _needs("mmdebstrap", "make lab images", "apt-get install mmdebstrap")
    if os.geteuid() != 0:
        raise ProvisionError("lab-not-root", "lab images are made by root", hint="run it again with sudo")
    with tempfile.TemporaryDirectory(prefix="provision-lab-") as folder:
        header = _fetch_header(Path(folder))
        with ThreadPoolExecutor(MOST_BUILDS) as pool:
            list(pool.map(lambda made: _build(client, made, header, Path(folder), say), missing))
    return tags


def images(client: DockerClient) -> list[str]:
    """Tags of all cached lab images."""
    return sorted(t for image in client.images.list(filters={"label": IMAGE_LABEL}) for t in image.tags)


# -- the machine's mirror ---------------------------------------------------------------------------------------------


def machine_mirror() -> Mirror:
    """Read where this machine gets Debian from; PROVISION_LAB_MIRROR replaces the archive's address."""
    folder = Path("/etc/apt")
    sources: list[mirrors.Source] = []
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            sources += mirrors.parse_one_line(path.read_text(errors="replace"))
        elif path.suffix == ".sources" and path.is_file():
            sources += mirrors.parse_deb822(path.read_text(errors="replace"))
    settings: tuple[str, ...] = ()
    if shutil.which("apt-config"):
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
        settings = mirrors.carried_settings(dump)
    given = os.environ.get(MIRROR_VARIABLE)
    if given:
        sources.insert(0, mirrors.Source(given, "stable", ("main",), "/usr/share/keyrings/debian-archive-keyring.gpg"))
    return mirrors.choose(sources, settings, _carried_files())


def _carried_files() -> tuple[tuple[str, str], ...]:
    """Logins for the mirror and certificates this machine trusts besides the usual ones."""
    found = [*Path("/etc/apt/auth.conf.d").glob("*.conf"), *Path("/usr/local/share/ca-certificates").glob("*.crt")]
    if Path("/etc/apt/auth.conf").is_file():
        found.append(Path("/etc/apt/auth.conf"))
    return tuple((str(path), str(path)) for path in sorted(found))


def _has(mirror: Mirror, pocket: str) -> bool:
    """Whether the mirror has this suite, asked through apt so that proxy and login hold."""
    base = mirror.security if pocket.endswith("-security") else mirror.archive
    if base is None:
        return False
    url = f"{base.rstrip('/')}/dists/{pocket}/InRelease"
    with tempfile.TemporaryDirectory(prefix="provision-lab-") as folder:
        helper = [
            "/usr/lib/apt/apt-helper",
            "-o",
            "APT::Sandbox::User=root",
            "download-file",
            url,
            f"{folder}/InRelease",
        ]
        return subprocess.run(helper, capture_output=True).returncode == 0


# -- building ---------------------------------------------------------------------------------------------------------


def _build(client: DockerClient, made: Recipe, header: Path, folder: Path, say: Say) -> None:
    """Build one image, unless another run on this machine has just done so."""
    from docker.errors import ImageNotFound

    with (Path(tempfile.gettempdir()) / f"provision-lab-{made.suite}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"image {made.suite}: another run builds it, waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            client.images.get(made.tag)
        except ImageNotFound:
            _make(client, made, header, folder, say)


def _make(client: DockerClient, made: Recipe, header: Path, folder: Path, say: Say) -> None:
    began = time.monotonic()
    say(f"image {made.suite}: building (about 1 min, only when its recipe changes)")
    sources = folder / f"{made.suite}.list"
    sources.write_text(made.sources)
    conf = folder / f"{made.suite}.conf"
    conf.write_text(made.apt_conf + 'Acquire::Languages "none";\n')
    archive = folder / f"{made.suite}.tar"
    hooks = []
    for path, here in made.files:
        mode = "600" if "auth" in path else "644"
        hooks.append(f'--customize-hook=install -D -m {mode} "{here}" "$1{path}"')
    if any(path.endswith(".crt") for path, _ in made.files):
        hooks.append('--customize-hook=chroot "$1" update-ca-certificates >/dev/null')
    # essential-hook: the small-initramfs setting must lie there before the kernel's postinst makes one.
    hooks.append(f'--essential-hook=install -D -m 644 "{ASSETS}/initramfs.conf" "$1/etc/initramfs-tools/conf.d/lab"')
    command = [
        "mmdebstrap", "--variant=minbase", "--skip=cleanup/apt/lists", f"--aptopt={conf}",
        *(f"--dpkgopt={option}" for option in made.left_out),
        f"--include={','.join(made.packages)}", *hooks, f'--customize-hook=sh "{ASSETS}/customize" "$1"',
        made.suite, str(archive), str(sources),
    ]  # fmt: skip
    environment = os.environ | {"ASSETS": str(ASSETS), "HEADER": str(header), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise ProvisionError(
            "lab-image-failed",
            f"the image for {made.suite} could not be made",
            context=[line for line in done.stderr.splitlines() if line.strip()][-12:],
            hint="mmdebstrap said the above; is the mirror reachable (apt-get update)?",
        )
    changes = [f'LABEL {RECIPE_LABEL}="{made.digest}" {IMAGE_LABEL}="{made.suite}"', 'ENV container="docker"']
    client.api.timeout = 600
    client.api.import_image(src=str(archive), repository=REPOSITORY, tag=made.tag.split(":")[1], changes=changes)
    client.images.get(made.tag)  # raises when the engine refused the import
    archive.unlink()
    say(f"image {made.suite}: built in {time.monotonic() - began:.0f} s")


def _fetch_header(folder: Path) -> Path:
    """Fetch NVIDIA's nvml.h through pip, with this machine's own settings."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), NVML_HEADER]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("nvidia_nvml_dev-*.whl"))
    if done.returncode != 0 or not wheels:
        raise ProvisionError(
            "lab-no-nvml-header",
            "NVIDIA's nvml.h could not be fetched, and the simulated library is built against it",
            context=done.stderr.splitlines()[-4:],
            hint=f"try by hand: {sys.executable} -m pip download --no-deps '{NVML_HEADER}'",
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith("/include/nvml.h"))
        target = folder / "nvml.h"
        target.write_bytes(wheel.read(name))
    return target


def _needs(program: str, purpose: str, hint: str) -> None:
    if shutil.which(program) is None:
        raise ProvisionError("lab-program-missing", f"{program} is needed to {purpose}", hint=hint)
