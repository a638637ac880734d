"""The driver wherever it lies: in the kernel, on disk for each kernel, in the libraries, the firmware, the packages.

All of these must be of one version, except packages that have versions of their own.
"""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache

from provisioner.doctor.facts.fact import CALLED, UNSEEN, Fact, Seen
from provisioner.doctor.host import Host, shown
from provisioner.doctor.truth import Evidence
from provisioner.facts import driver as facts_of_driver
from provisioner.facts.listing import listed, natural
from provisioner.model.capture import UNKNOWN, Unknown
from provisioner.model.facts import Package
from provisioner.probe.request import BOOT_MODULES, IN_CONTAINERS

VERSION = r"\d{3,4}\.\d+(?:\.\d+)?"
_LIBRARY_LINE = re.compile(rf"/libnvidia-ml\.so\.({VERSION})\s*$")
# Packages of the driver that must have exactly its version. What is not named here (settings, prime, modprobe,
# persistenced on Debian, the container toolkit, firmware of other vendors) has versions of its own.
LOCKSTEP = (
    "libnvidia-compute*",
    "libnvidia-ml1",
    "libnvidia-ml",
    "libcuda1",
    "libnvidia-cfg1*",
    "libnvidia-gl-*",
    "nvidia-utils*",
    "nvidia-smi",
    "nvidia-compute-utils*",
    "nvidia-dkms*",
    "nvidia-kernel-dkms",
    "nvidia-open-kernel-dkms",
    "nvidia-kernel-open-dkms",
    "nvidia-kernel-source*",
    "nvidia-kernel-common-[0-9]*",
    "nvidia-driver",
    "nvidia-driver-[0-9]*",
    "nvidia-driver-cuda*",
    "nvidia-headless-*",
    "nvidia-alternative",
    "nvidia-kernel-support",
    "linux-modules-nvidia-*",
    "nvidia-open",
    "nvidia-open-[0-9]*",
    "cuda-drivers",
    "cuda-drivers-[0-9]*",
    "nvidia-firmware-[0-9]*",
    "firmware-nvidia-gsp",
    "nvidia-[0-9][0-9][0-9]",
)
MODULE_PACKAGES = (
    "nvidia-dkms*",
    "nvidia-kernel-dkms",
    "nvidia-open-kernel-dkms",
    "nvidia-kernel-open-dkms",
    "linux-modules-nvidia-*",
    "nvidia-kernel-source*",
)
_UPSTREAM = re.compile(rf"^(?:\d+:)?({VERSION})(?=[-~+]|$)")
_BRANCH_IN_NAME = re.compile(r"-(\d{3})(?=-|$)")


def _loaded(host: Host) -> Seen:
    version = facts_of_driver.loaded(host.capture)
    if version is UNKNOWN:
        return UNSEEN
    for path in ("/sys/module/nvidia/version", "/proc/driver/nvidia/version"):
        text = host.capture.file(path)
        if version is not None and isinstance(text, str) and version in text:
            return Seen(version, (shown("loaded", version, path),))
    where = "lsmod" if host.capture.command("lsmod") is not UNKNOWN else "/proc/modules"
    return Seen(version, (shown("loaded", "no module of NVIDIA's", where),))


def _flavour(host: Host) -> Seen:
    """Of the loaded module; else of the one that would load."""
    loaded = facts_of_driver.loaded_flavour(host.capture)
    if isinstance(loaded, str):
        text = str(host.capture.file("/proc/driver/nvidia/version")).splitlines()[0]
        return Seen(loaded, (shown("modules", text, "/proc/driver/nvidia/version"),))
    told = host.capture.command("modinfo -F license nvidia")
    if told is not UNKNOWN and told.rc == 0:
        flavour = facts_of_driver.license_flavour(told.stdout.strip())
        if isinstance(flavour, str):
            return Seen(flavour, (shown("modules", told.stdout, "modinfo -F license nvidia"),))
    return UNSEEN


def read_library(host: Host) -> Seen:
    """The version of NVML's library, by the name of the file behind its link."""
    for line, answer in host.answers("readlink -f */libnvidia-ml.so.1"):
        match = _LIBRARY_LINE.search(answer.stdout.strip())
        if match:
            return Seen(match[1], (shown("library", answer.stdout, line),))
    version = facts_of_driver.library(host.capture, host.os)
    folders = ("x86_64-linux-gnu", "aarch64-linux-gnu")
    where = host.shown_by(*(f"readlink -f /usr/lib/{folder}/libnvidia-ml.so.1" for folder in folders))
    return UNSEEN if version is UNKNOWN else Seen(version, (shown("library", "none", where),))


def _libcuda(host: Host) -> Seen:
    for line, answer in host.answers("readlink -f */libcuda.so.1"):
        match = re.search(rf"/libcuda\.so\.({VERSION})\s*$", answer.stdout.strip())
        if match:
            return Seen(match[1], (shown("libcuda", answer.stdout, line),))
    return UNSEEN


def _on_disk(host: Host) -> Seen:
    """The module that would load for the running kernel."""
    version = facts_of_driver.module_for_running(host.capture, host.os, host.running, host.modules)
    if version is UNKNOWN:
        return UNSEEN
    told = host.capture.command("modinfo -F version nvidia")
    if version is not None and told is not UNKNOWN and told.rc == 0 and version in told.stdout:
        return Seen(version, (shown("on disk", version, "modinfo -F version nvidia"),))
    tree, listing = "readlink -f /var/lib/dkms/*/kernel-*", "ls -d /lib/modules/*/updates/dkms/nvidia*"
    where = (
        host.shown_by(tree, "modinfo -F version nvidia")
        if version
        else host.shown_by(listing, "modinfo -F version nvidia")
    )
    return Seen(version, (shown("on disk", version or f"no module for {host.running}", where),))


@lru_cache(maxsize=64)
def named(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for names with stars."""
    return re.compile("|".join(translate(pattern) for pattern in patterns))


def _modules(host: Host) -> Seen:
    """Versions of the modules that lie on disk, for every kernel."""
    if host.modules is UNKNOWN or any(build.version is UNKNOWN for build in host.modules):
        return UNSEEN
    where = host.shown_by("readlink -f /var/lib/dkms/*/kernel-*", "ls -d /lib/modules/*/updates/dkms/nvidia*")
    rows = tuple(shown("on disk", f"{build.version} for {build.kernel}", where) for build in host.modules)
    return Seen(tuple(dict.fromkeys(str(build.version) for build in host.modules)), rows)


def _known(host: Host, patterns: tuple[str, ...]) -> tuple[dict[str, Package], bool]:
    """Installed packages whose name matches, and whether such names were looked for at all."""
    packages = host.packages
    if packages is UNKNOWN:
        return {}, False
    matches = named(patterns).match
    found = {name: item for name, item in packages.items() if "nvidia" in name or "cuda" in name if matches(name)}
    return found, host.package("nvidia-driver") is not UNKNOWN or bool(found)


def upstream(package: Package) -> str | None:
    """`525.85.12-1~deb12u1` is 525.85.12; None for a version that is not of a driver."""
    match = _UPSTREAM.match(package.version)
    return match[1] if match else None


def _rows(host: Host, packages: list[Package], label: str = "package") -> tuple[Evidence, ...]:
    return tuple(shown(label, f"{item.name} {item.version}", host.package_line) for item in packages)


def _packaged(host: Host) -> Seen:
    """Versions of the installed packages that must all be of one."""
    found, looked = _known(host, LOCKSTEP)
    if not looked:
        return UNSEEN
    # A removed package that left its configuration is not installed; the parser left it out.
    versions: dict[str, list[Package]] = {}
    for package in found.values():
        version = upstream(package)
        if version:
            versions.setdefault(version, []).append(package)
    order = sorted(versions, key=natural)
    picked = [package for version in order for package in versions[version][:2]]
    return Seen(tuple(order), _rows(host, picked))


def _odd_names(host: Host) -> Seen:
    """Packages whose name says another branch than their version: transitional ones, which pin nothing."""
    found, looked = _known(host, ("nvidia-*", "libnvidia-*", "xserver-xorg-video-nvidia-*", "linux-modules-nvidia-*"))
    if not looked:
        return UNSEEN
    odd = []
    for package in found.values():
        match, version = _BRANCH_IN_NAME.search(package.name), upstream(package)
        if match and version and version.split(".")[0] != match[1] and not package.name.startswith("nvidia-fabric"):
            odd.append(package)
    return Seen(tuple(item.name for item in odd), _rows(host, odd[:3]))


def _origins(host: Host) -> Seen:
    """Whose revisions the packages carry: Ubuntu's archive, NVIDIA's repository, Debian."""
    found, looked = _known(host, LOCKSTEP)
    if not looked:
        return UNSEEN
    first: dict[str, Package] = {}
    for package in found.values():
        revision = package.version.rpartition("-")[2]
        if upstream(package) is None or "-" not in package.version:
            continue
        if re.match(r"0ubuntu0\.|0ubuntu\d+\.\d", revision):
            origin = "ubuntu"
        elif re.match(r"\d+ubuntu\d+$", revision):
            origin = "nvidia"
        elif "deb" in revision or "bpo" in revision:
            origin = "debian"
        else:
            continue  # `-1` is used by Debian and by NVIDIA's repository alike
        first.setdefault(origin, package)
    return Seen(tuple(sorted(first)), _rows(host, [first[name] for name in sorted(first)]))


def _module_package(host: Host) -> Seen:
    found, looked = _known(host, MODULE_PACKAGES)
    if not looked:
        return UNSEEN
    return Seen(tuple(found), _rows(host, list(found.values())[:2]))


def _present(host: Host) -> Seen:
    """Whether a driver was installed here in any way: packages, a module on disk, a library, a .run file."""
    found, looked = _known(host, LOCKSTEP)
    loaded, library, on_disk, run_file = (read(host) for read in (_loaded, read_library, _on_disk, _run_file))
    if found:
        return Seen(True, _rows(host, list(found.values())[:1]))
    for seen in (loaded, on_disk, library):
        if isinstance(seen.value, str):
            return Seen(True, seen.evidence)
    if run_file.value is True:
        return Seen(True, run_file.evidence)
    rpms = host.answers("rpm -qa*")
    if any("nvidia" in answer.stdout for _, answer in rpms):
        return Seen(True, (shown("package", rpms[0][1].stdout.splitlines()[0], rpms[0][0]),))
    dkms = _dkms_names(host)
    if dkms:
        return Seen(True, dkms)
    nothing = loaded.value is None and library.value is None and (looked or bool(rpms))
    return Seen(False, (*loaded.evidence, *library.evidence)) if nothing else UNSEEN


def _run_file(host: Host) -> Seen:
    found = facts_of_driver.run_file_install(host.capture)
    if found is UNKNOWN:
        log = host.capture.file("/var/log/nvidia-installer.log")
        return (
            Seen(True, (shown("installer", "NVIDIA's .run file", "/var/log/nvidia-installer.log"),)) if log else UNSEEN
        )
    where = host.shown_by("ls -d /usr/bin/nvidia-uninstall", "ls /usr/bin/nvidia-uninstall")
    return Seen(found, (shown("installer", "NVIDIA's .run file" if found else "no .run file", where),))


def _fabric_manager(host: Host) -> Seen:
    found, looked = _known(host, ("nvidia-fabricmanager*", "cuda-drivers-fabricmanager*"))
    versions = [(package, upstream(package)) for package in found.values() if not package.name.startswith("cuda-")]
    for package, version in versions:
        if version:
            return Seen(version, _rows(host, [package], "fabric manager"))
    return Seen(None) if looked else UNSEEN


def _dkms_rows(host: Host) -> list[tuple[str, str, str, str, str]] | Unknown:
    """(name, version, kernel, state, line) of NVIDIA's modules in `dkms status`; the kernel of `added` is empty."""
    answers = [item for item in host.answers("dkms status*") if item[1].rc == 0]
    if not answers:
        return UNKNOWN
    rows = []
    for line in answers[0][1].stdout.splitlines():
        match = re.match(r"(nvidia[\w-]*)[/,]\s*([\w.]+)(?:,\s*(\S+?),\s*\S+)?\s*(?:\([^)]*\))?:\s*(\w[\w ]*)", line)
        if match:
            rows.append((match[1], match[2], match[3] or "", match[4].strip(), line))
    return rows


def _dkms_names(host: Host) -> tuple[Evidence, ...]:
    rows = _dkms_rows(host)
    return () if rows is UNKNOWN else tuple(shown("DKMS", row[4], "dkms status") for row in rows[:1])


def _dkms(host: Host) -> Seen:
    """Whether DKMS is to build the module: its state for the running kernel, `added` when it is built for none."""
    rows = _dkms_rows(host)
    if rows is UNKNOWN:
        return UNSEEN
    if host.running is UNKNOWN and any(row[2] for row in rows):
        return UNSEEN
    mine = [row for row in rows if row[2] == host.running] or rows
    if not mine:
        return Seen(None, (shown("DKMS", "nothing of NVIDIA's", "dkms status"),))
    state = mine[0][3] if mine[0][2] in (host.running, "") else "other kernel"
    return Seen(state, (shown("DKMS", mine[0][4], "dkms status"),))


def _dkms_versions(host: Host) -> Seen:
    rows = _dkms_rows(host)
    if rows is UNKNOWN:
        return UNSEEN
    versions = tuple(dict.fromkeys(row[1] for row in rows))
    return Seen(versions, tuple(shown("DKMS", row[4], "dkms status") for row in rows))


def _does_not_build(host: Host) -> Seen:
    """Kernels that run or boot next for which the matrix knows that the installed module package does not compile."""
    releases = [release for release in dict.fromkeys((host.running, host.next_boot)) if isinstance(release, str)]
    if host.matrix is None or host.os is UNKNOWN or host.packages is UNKNOWN or not releases:
        return UNSEEN
    found: dict[str, Evidence] = {}
    for branch in host.matrix.drivers.values():
        for names in branch.packages:
            package = host.packages.get(names.kernel_package)
            if package is None or not names.does_not_build or host.os.id not in names.os:
                continue
            for release in releases:
                for fact in names.against_building(package.version, release):
                    what = f"{package.name} {package.version} does not build for {release}"
                    found[release] = shown("known", f"{what} (drivers/{branch.id}): {fact.why}", host.package_line)
    return Seen(tuple(found), tuple(found.values()))


def _firmware(host: Host) -> Seen:
    """Versions whose GSP firmware lies on disk."""
    for line in ("ls /lib/firmware/nvidia", "ls /usr/lib/firmware/nvidia"):
        names = listed(host.capture, line)
        if names is not UNKNOWN:
            versions = tuple(name for name in names if re.fullmatch(VERSION, name))
            return Seen(versions, (shown("firmware", ", ".join(versions) or "none", line),))
    return UNSEEN


def _prebuilt(host: Host) -> Seen:
    """Kernels that have a module built by the vendor or the distribution, when such packages are used at all."""
    kernels: list[str] = []
    rows: list[Evidence] = []
    found, looked = _known(host, ("linux-modules-nvidia-*",))
    for package in found.values():
        match = re.match(r"linux-modules-nvidia-\d+(?:-server)?(?:-open)?-(\d.+)", package.name)
        if match:
            kernels.append(match[1])
            rows.append(shown("package", f"{package.name} {package.version}", host.package_line))
    for line, answer in host.answers("rpm -qa*"):
        looked = looked or "nvidia" in line
        for name in answer.stdout.split():
            match = re.match(rf"kmod-nvidia-(?:open-)?(?:{VERSION})-(\d[\w.-]*?)-{VERSION}", name)
            if match:
                kernels.append(match[1])
                rows.append(shown("package", name, line))
    return Seen(tuple(kernels), tuple(rows[:3])) if looked else UNSEEN


def _prebuilt_running(host: Host) -> Seen:
    """Whether one of the prebuilt modules is for the running kernel; el8 packages leave off its last parts."""
    seen = _prebuilt(host)
    if seen.value is UNKNOWN or host.running is UNKNOWN:
        return UNSEEN
    if not seen.value:
        return Seen(None)
    mine = any(host.running == kernel or host.running.startswith(f"{kernel}.") for kernel in seen.value)
    return Seen(
        mine, (*seen.evidence, shown("running", host.running, host.shown_by("/proc/sys/kernel/osrelease", "uname -r")))
    )


def _held(host: Host) -> Seen:
    """Packages of the driver that are on hold."""
    found, looked = _known(host, LOCKSTEP)
    if not looked:
        return UNSEEN
    held = [package for package in found.values() if package.held]
    told = host.capture.command("apt-mark showhold")
    rows = _rows(host, held[:3], "held")
    return (
        Seen(tuple(package.name for package in held), rows or (shown("held", "none", "apt-mark showhold"),))
        if (held or told is not UNKNOWN or found)
        else Seen(())
    )


def _branch(host: Host) -> Seen:
    """The number of the branch that is installed or loaded."""
    for seen in (_loaded(host), _on_disk(host), _packaged(host)):
        value = seen.value[-1] if isinstance(seen.value, tuple) and seen.value else seen.value
        if isinstance(value, str) and value:
            return Seen(value.split(".")[0], seen.evidence[:1])
    return UNSEEN


_COMPAT = re.compile(r"/compat/")  # an image's own library for forward compatibility: it lawfully differs


def _held_libraries(host: Host) -> Seen:
    """Versions of NVIDIA's libraries that running processes have open."""
    for line, answer in host.answers("grep*/proc/*maps*"):
        rows = [row for row in answer.stdout.splitlines() if not _COMPAT.search(row)]
        versions = re.findall(rf"lib(?:cuda|nvidia-ml)\.so\.({VERSION})", "\n".join(rows))
        return Seen(tuple(sorted(set(versions), key=natural)), tuple(shown("in use", row, line) for row in rows[:3]))
    return UNSEEN


def _in_containers(host: Host) -> Seen:
    """Versions of NVIDIA's libraries that programs in containers have open, with the container and the program."""
    answer = host.capture.command(IN_CONTAINERS.line)
    if answer is UNKNOWN or answer.rc in (124, 127):
        return UNSEEN
    found: dict[str, Evidence] = {}
    for row in answer.stdout.splitlines():
        match = re.match(rf"([0-9a-f]{{12}})[0-9a-f]* (\S+) (\S*/lib(?:cuda|nvidia-ml)\.so\.({VERSION}))$", row)
        if match and not _COMPAT.search(match[3]):
            text = f"{match[2]} in container {match[1]} holds {match[3]}"
            found.setdefault(match[4], shown("holds", text, CALLED[IN_CONTAINERS.line]))
    order = sorted(found, key=natural)
    return Seen(tuple(order), tuple(found[version] for version in order))


_IN_IMAGE = re.compile(rf"^/boot/initrd\.img-(\S+) (\S+) ({VERSION})$", re.MULTILINE)


def _boot_modules(host: Host) -> Seen:
    """Versions of the module that lies in the boot images, of every kernel; () when it lies in none of them."""
    answer = host.capture.command(BOOT_MODULES.line)
    if answer is UNKNOWN or answer.rc in (124, 127):
        return UNSEEN
    found = {match[3]: match for match in _IN_IMAGE.finditer(answer.stdout)}
    if not found and answer.rc != 0:
        return UNSEEN  # an image that can't be read to its end may have held one
    rows = (_in_image(match) for match in found.values())
    return Seen(tuple(sorted(found, key=natural)), tuple(rows))


def _in_image(match: re.Match[str]) -> Evidence:
    return shown("image", f"{match[2].rpartition('/')[2]} {match[3]}", f"/boot/initrd.img-{match[1]}")


def _stale_images(host: Host) -> Seen:
    """Kernels whose boot image holds a module of another version than the libraries."""
    answer, library = host.capture.command(BOOT_MODULES.line), read_library(host)
    if answer is UNKNOWN or answer.rc in (124, 127) or library.value is UNKNOWN:
        return UNSEEN
    if library.value is None:
        return Seen(())
    wrong = [match for match in _IN_IMAGE.finditer(answer.stdout) if match[3] != library.value]
    if not wrong and answer.rc != 0:
        return UNSEEN
    rows = (*(_in_image(match) for match in wrong), *library.evidence) if wrong else ()
    return Seen(tuple(match[1] for match in wrong), rows)


def _initramfs(host: Host) -> Seen:
    """Versions of the driver whose parts lie in the running kernel's initramfs; () when it holds none."""
    for line, answer in host.answers("lsinitramfs *", "lsinitrd *"):
        if answer.rc not in (0, 1) or ("No such" in answer.stderr and not answer.stdout):
            continue
        versions = tuple(dict.fromkeys(re.findall(rf"firmware/nvidia/({VERSION})/", answer.stdout)))
        rows = [row for row in answer.stdout.splitlines() if "nvidia" in row]
        return Seen(versions, tuple(shown("initramfs", row, line) for row in rows[:1]))
    return UNSEEN


FACTS = (
    Fact("driver.loaded", "version", "the driver in the kernel", "cat /sys/module/nvidia/version", _loaded),
    Fact("driver.flavour", "text", "the modules' flavour, open or proprietary", "modinfo -F license nvidia", _flavour),
    Fact(
        "driver.library",
        "version",
        "NVML's library",
        "readlink -f /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
        read_library,
    ),
    Fact("driver.libcuda", "version", "CUDA's library", "readlink -f /usr/lib/x86_64-linux-gnu/libcuda.so.1", _libcuda),
    Fact("driver.on_disk", "version", "the module on disk", "modinfo -F version nvidia", _on_disk),
    Fact("driver.modules", "versions", "modules of every kernel", "dkms status", _modules),
    Fact("driver.packaged", "versions", "versions of the driver's packages", "dpkg-query -W '*nvidia*'", _packaged),
    Fact(
        "driver.odd_names",
        "texts",
        "packages whose name and version differ in branch",
        "dpkg-query -W '*nvidia*'",
        _odd_names,
    ),
    Fact("driver.origins", "texts", "whose packages the driver's are", "dpkg-query -W '*nvidia*'", _origins),
    Fact(
        "driver.module_packages", "texts", "packages that bring the module", "dpkg-query -W '*nvidia*'", _module_package
    ),
    Fact("driver.present", "truth", "whether a driver was installed", "dpkg-query -W '*nvidia*'", _present),
    Fact("driver.run_file", "truth", "whether NVIDIA's .run file was used", "ls /usr/bin/nvidia-uninstall", _run_file),
    Fact(
        "driver.fabric_manager",
        "version",
        "the fabric manager",
        "dpkg-query -W 'nvidia-fabricmanager*'",
        _fabric_manager,
    ),
    Fact("driver.dkms", "text", "DKMS's state for the running kernel", "dkms status", _dkms),
    Fact("driver.dkms_versions", "versions", "versions that DKMS knows", "dkms status", _dkms_versions),
    Fact(
        "driver.does_not_build",
        "texts",
        "kernels for which the installed module is known not to build",
        "dpkg-query -W '*nvidia*'",
        _does_not_build,
    ),
    Fact("driver.firmware", "versions", "GSP firmware on disk", "ls /lib/firmware/nvidia", _firmware),
    Fact(
        "driver.prebuilt",
        "texts",
        "kernels with a prebuilt module",
        "dpkg-query -W 'linux-modules-nvidia-*'",
        _prebuilt,
    ),
    Fact(
        "driver.prebuilt_for_running",
        "truth",
        "a prebuilt module for the running kernel",
        "uname -r",
        _prebuilt_running,
    ),
    Fact("driver.held", "texts", "holds on the driver's packages", "apt-mark showhold", _held),
    Fact("driver.branch", "number", "the driver's branch", "cat /sys/module/nvidia/version", _branch),
    Fact(
        "driver.in_use",
        "versions",
        "driver libraries that processes hold",
        "grep -h libcuda /proc/[0-9]*/maps",
        _held_libraries,
    ),
    Fact(
        "driver.in_containers",
        "versions",
        "driver libraries that containers hold",
        "grep -E 'lib(cuda|nvidia-ml)' /proc/[0-9]*/maps",
        _in_containers,
    ),
    Fact(
        "driver.boot_modules",
        "versions",
        "modules in the boot images",
        "unmkinitramfs /boot/initrd.img-$(uname -r) DIR; modinfo DIR/…/nvidia.ko",
        _boot_modules,
    ),
    Fact(
        "driver.stale_images",
        "texts",
        "kernels whose boot image holds another module",
        "unmkinitramfs /boot/initrd.img-$(uname -r) DIR; modinfo DIR/…/nvidia.ko",
        _stale_images,
    ),
    Fact(
        "driver.initramfs",
        "versions",
        "the driver in the initramfs",
        "lsinitramfs /boot/initrd.img-$(uname -r)",
        _initramfs,
    ),
)
